"""aiodocker as people use it."""

import asyncio
import io
import sys
import tarfile

import aiodocker


async def main() -> None:
    async with aiodocker.Docker() as docker:
        assert (await docker.version())["Os"] == "linux"
        volume = await docker.volumes.create({"Name": "aio"})
        network = await docker.networks.create({"Name": "aionet", "Driver": "bridge"})
        subscriber = docker.events.subscribe()
        box = await docker.containers.create_or_replace(
            name="aiobox",
            config={
                "Image": "busybox",
                "Cmd": ["sh", "-c", "echo up; cat"],
                "OpenStdin": True,
                "HostConfig": {"Binds": ["aio:/data"], "NetworkMode": "aionet"},
            },
        )
        await box.start()
        while True:
            event = await asyncio.wait_for(subscriber.get(), 60)
            if event and event["Type"] == "container" and event["Action"] == "start":
                break
        async with box.attach(stdin=True, stdout=True, stderr=True, logs=True) as stream:
            message = await stream.read_out()
            assert message.data == b"up\n", message
            await stream.write_in(b"echoed\n")
            message = await stream.read_out()
            assert message.data == b"echoed\n", message
        execution = await box.exec(["sh", "-c", "echo inside; exit 5"])
        async with execution.start(detach=False) as stream:
            assert (await stream.read_out()).data == b"inside\n"
            assert await stream.read_out() is None
        assert (await execution.inspect())["ExitCode"] == 5
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            member = tarfile.TarInfo("f")
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
        await box.put_archive("/data", buffer.getvalue())
        with await box.get_archive("/data/f") as tar:
            assert tar.getnames() == ["f"]
        assert "".join(await box.log(stdout=True)) == "up\nechoed\n"
        stats = await box.stats(stream=False)
        assert stats[0]["memory_stats"]["usage"] > 0
        assert [item.id for item in await docker.containers.list()] == [box.id]
        await box.kill()
        assert (await box.wait())["StatusCode"] == 137
        await box.delete(v=True)
        await network.delete()
        await volume.delete()
        try:
            await docker.containers.get("aiobox")
        except aiodocker.DockerError as error:
            assert error.status == 404
        else:
            raise AssertionError("deleted, yet there")
        assert {image["Id"] for image in await docker.images.list()}
        await docker.events.stop()


asyncio.run(main())
print("ok", file=sys.stdout)
