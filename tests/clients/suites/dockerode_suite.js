// dockerode as people use it.
'use strict';
const assert = require('assert');
const { PassThrough } = require('stream');
const Docker = require('dockerode');

const docker = new Docker();

function text(stream) {
  return new Promise((resolve, reject) => {
    let data = '';
    stream.on('data', (chunk) => { data += chunk; });
    stream.on('end', () => resolve(data));
    stream.on('error', reject);
  });
}

async function main() {
  assert.strictEqual((await docker.ping()).toString(), 'OK');
  const events = await docker.getEvents({ filters: { type: ['container'], event: ['start'] } });
  const started = new Promise((resolve) => events.once('data', (data) => resolve(JSON.parse(data))));

  const out = new PassThrough();
  const seen = text(out);
  const [result, ran] = await docker.run('busybox', ['echo', 'from', 'node'], out, { Tty: true });
  out.end();
  assert.strictEqual(result.StatusCode, 0);
  assert.strictEqual(await seen, 'from node\r\n');
  assert.strictEqual((await started).Actor.ID, ran.id);
  events.destroy();
  await ran.remove();

  const volume = await docker.createVolume({ Name: 'nodevol' });
  const network = await docker.createNetwork({ Name: 'nodenet' });
  const box = await docker.createContainer({
    Image: 'busybox', name: 'nodebox', Cmd: ['cat'], OpenStdin: true, StdinOnce: true,
    HostConfig: { Binds: ['nodevol:/data'], NetworkMode: 'nodenet' },
  });
  const stream = await box.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const plain = new PassThrough();
  const echoed = text(plain);
  docker.modem.demuxStream(stream, plain, plain);
  stream.on('end', () => plain.end());
  await box.start();
  const execution = await box.exec({ Cmd: ['sh', '-c', 'echo in; exit 6'], AttachStdout: true, AttachStderr: true });
  const running = await execution.start({});
  const inside = new PassThrough();
  docker.modem.demuxStream(running, inside, inside);
  running.on('end', () => inside.end());
  assert.strictEqual(await text(inside), 'in\n');
  assert.strictEqual((await execution.inspect()).ExitCode, 6);
  assert.ok((await box.stats({ stream: false })).memory_stats.usage > 0);
  assert.strictEqual((await docker.listContainers({ filters: { name: ['nodebox'] } }))[0].State, 'running');
  stream.write('through\n');
  stream.end();
  assert.strictEqual((await box.wait()).StatusCode, 0);
  assert.strictEqual(await echoed, 'through\n');
  assert.ok((await box.logs({ stdout: true })).toString().endsWith('through\n'));
  await box.remove({ v: true });
  await network.remove();
  await volume.remove();
  await assert.rejects(docker.getContainer('nodebox').inspect(), { statusCode: 404 });
  console.log('ok');
}

main().catch((error) => { console.error(error); process.exit(1); });
