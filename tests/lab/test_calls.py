"""Tasks, injected faults and latency, sessions, waiting for updates, datastore files."""

from __future__ import annotations

import gc
import http.client
import threading
import time
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.lab.process import LabProcess, insecure
from tests.lab.vcenter import Collector, VCenter, Watch

# pyvmomi leaves the sockets of broken connections to the garbage collector
abandoned = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


# -- tasks


def test_a_task_runs_by_itself_and_shows_progress(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create("progress")
    lab.fault(method="PowerOnVM_Task", count=1, queued_ms=300, latency_ms=500)
    task = vm.PowerOnVM_Task(None)
    seen: list[tuple[str, int | None]] = []
    with Watch(vcenter, task, ["info.state", "info.progress", "info.cancelable"]) as watch:
        while not seen or seen[-1][0] not in ("success", "error"):
            seen.append((watch.values["info.state"], watch.values.get("info.progress")))
            if seen[-1][0] not in ("success", "error"):
                assert watch.next(seconds=5)
    states = list(dict.fromkeys(state for state, _ in seen))
    assert states == ["queued", "running", "success"]
    assert len({progress for _, progress in seen if progress is not None}) > 2
    info = vcenter.read(task, "info")
    assert info.name.info.wsdlName == "PowerOnVM_Task"
    assert info.entityName == "progress"
    assert info.completeTime >= info.startTime


def test_a_task_is_cancelled_before_its_effect_and_not_after(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create("cancelled")
    lab.fault(method="PowerOnVM_Task", count=1, latency_ms=20_000)
    task = vm.PowerOnVM_Task(None)
    vcenter.until(task, ["info.state"], lambda v: v["info.state"] == "running")
    task.CancelTask()
    with pytest.raises(vmodl.fault.RequestCanceled):
        vcenter.wait(task)
    assert vcenter.read(task, "info.cancelled")
    assert vcenter.read(vm, "runtime.powerState") == "poweredOff"
    done = vm.PowerOnVM_Task(None)
    vcenter.wait(done)
    with pytest.raises(vim.fault.InvalidState):
        done.CancelTask()


def test_a_task_may_fail_before_or_after_its_effect(lab: LabProcess, vcenter: VCenter) -> None:
    vm = vcenter.create("late")
    lab.fault(method="PowerOnVM_Task", object="late", count=1, fault="HostCommunication")
    with pytest.raises(vmodl.fault.HostCommunication):
        vcenter.power_on(vm)
    assert vcenter.read(vm, "runtime.powerState") == "poweredOff"
    lab.fault(method="PowerOnVM_Task", object="late", count=1, fault="TaskInProgress", after=True,
              detail={"Task": {"Type": "Task", "Value": "task-1"}})  # fmt: skip
    with pytest.raises(vim.fault.TaskInProgress):
        vcenter.power_on(vm)
    assert vcenter.read(vm, "runtime.powerState") == "poweredOn"


def test_other_objects_and_later_calls_are_not_touched(lab: LabProcess, vcenter: VCenter) -> None:
    one, two = vcenter.create("one"), vcenter.create("two")
    lab.fault(method="ReconfigVM_Task", object="one", skip=1, count=1, fault="ConcurrentAccess")
    vcenter.reconfigure(one, annotation="first")
    vcenter.reconfigure(two, annotation="second")
    with pytest.raises(vim.fault.ConcurrentAccess):
        vcenter.reconfigure(one, annotation="third")
    vcenter.reconfigure(one, annotation="fourth")
    assert lab.control("GET", "faults") == []


@abandoned
def test_a_connection_is_lost_before_or_after_the_effect(lab: LabProcess, vcenter: VCenter) -> None:
    for when, made in (("before", False), ("after", True)):
        lab.fault(method="CreateFolder", count=1, drop=when)
        with pytest.raises((http.client.HTTPException, OSError)):
            vcenter.folder.CreateFolder(f"drop-{when}")
        names = [vcenter.read(child, "name") for child in vcenter.read(vcenter.folder, "childEntity")]
        assert (f"drop-{when}" in names) == made
    gc.collect()


@abandoned
def test_calls_fail_with_a_status_or_take_long(lab: LabProcess, vcenter: VCenter) -> None:
    lab.fault(method="CurrentTime", count=1, status=503)
    with pytest.raises(http.client.HTTPException):
        vcenter.instance.CurrentTime()
    lab.fault(method="CurrentTime", count=1, latency_ms=200)
    start = time.monotonic()
    vcenter.instance.CurrentTime()
    assert time.monotonic() - start >= 0.2
    gc.collect()


def test_an_unknown_fault_is_refused(lab: LabProcess) -> None:
    with pytest.raises(Exception, match="400"):
        lab.fault(method="X", fault="NoSuchThing")


def test_calls_are_counted(lab: LabProcess, vcenter: VCenter) -> None:
    lab.control("GET", "calls?reset=1")
    vcenter.instance.CurrentTime()
    vcenter.instance.CurrentTime()
    assert lab.control("GET", "calls") == {"CurrentTime": 2}


# -- sessions


def test_without_a_session_nothing_is_answered(lab: LabProcess) -> None:
    client = VCenter(lab)
    lab.control("POST", "sessions", {"expire": True, "user": client.user})
    with pytest.raises(vim.fault.NotAuthenticated):
        client.folder.CreateFolder("nobody")
    client.login()
    client.folder.CreateFolder("somebody")
    client.close()


def test_a_wrong_password_is_refused(lab: LabProcess) -> None:
    with pytest.raises(vim.fault.InvalidLogin):
        VCenter(lab, password="wrong")


def test_a_session_without_calls_expires(lab: LabProcess) -> None:
    client = VCenter(lab)
    lab.control("POST", "sessions", {"idle_seconds": 1})
    try:
        time.sleep(1.2)  # the time is what is tested
        with pytest.raises(vim.fault.NotAuthenticated):
            client.folder.CreateFolder("late")
    finally:
        lab.control("POST", "sessions", {"idle_seconds": 0})
        client.close()


def test_a_session_is_cloned_once(lab: LabProcess, vcenter: VCenter) -> None:
    vcenter.login()
    ticket = vcenter.content.sessionManager.AcquireCloneTicket()
    assert vcenter.content.sessionManager.CloneSession(ticket).userName == vcenter.user
    with pytest.raises(vim.fault.InvalidLogin):
        vcenter.content.sessionManager.CloneSession(ticket)
    vcenter.login()


# -- waiting for updates


def view(vcenter: VCenter) -> tuple[Any, Any]:
    """A collector over all VMs of the datacenter: name and power state."""
    container = vcenter.content.viewManager.CreateContainerView(
        vcenter.datacenter, [vim.VirtualMachine], True
    )
    collector = vcenter.content.propertyCollector.CreatePropertyCollector()
    traversal = Collector.TraversalSpec(name="v", path="view", skip=False, type=vim.view.ContainerView)
    spec = Collector.FilterSpec(
        propSet=[Collector.PropertySpec(type=vim.VirtualMachine, pathSet=["name", "runtime.powerState"])],
        objectSet=[Collector.ObjectSpec(obj=container, skip=True, selectSet=[traversal])],
    )
    collector.CreateFilter(spec, False)
    return container, collector


def test_a_view_shows_who_comes_changes_and_goes(vcenter: VCenter) -> None:
    _, collector = view(vcenter)
    version = collector.WaitForUpdatesEx("", None).version

    def next_() -> list[tuple[str, Any, dict[str, Any]]]:
        nonlocal version
        update = collector.WaitForUpdatesEx(version, Collector.WaitOptions(maxWaitSeconds=5))
        assert update is not None
        version = update.version
        return [
            (o.kind, o.obj, {c.name: c.val for c in o.changeSet})
            for f in update.filterSet
            for o in f.objectSet
        ]

    def until(kind: str, vm: Any) -> dict[str, Any]:
        while True:
            for seen, obj, values in next_():
                if (seen, obj) == (kind, vm):
                    return values

    vm = vcenter.create("visible")
    entered = until("enter", vm)
    assert entered["runtime.powerState"] == "poweredOff"
    vcenter.power_on(vm)
    assert until("modify", vm) == {"runtime.powerState": "poweredOn"}
    vcenter.destroy(vm)
    until("leave", vm)
    collector.Destroy()


def test_a_wait_ends_with_its_time_or_is_cancelled(vcenter: VCenter) -> None:
    _, collector = view(vcenter)
    version = collector.WaitForUpdatesEx("", None).version
    assert collector.WaitForUpdatesEx(version, Collector.WaitOptions(maxWaitSeconds=0)) is None
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            collector.WaitForUpdatesEx(version, Collector.WaitOptions(maxWaitSeconds=30))
        except vmodl.fault.RequestCanceled as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while thread.is_alive():
        collector.CancelWaitForUpdates()
        thread.join(0.1)
    assert len(caught) == 1
    with pytest.raises(vmodl.query.InvalidCollectorVersion):
        collector.WaitForUpdatesEx("17", None)
    collector.Destroy()


def test_long_answers_come_in_pages(vcenter: VCenter) -> None:
    vms = {vcenter.create(f"page{n}") for n in range(5)}
    container, collector = view(vcenter)
    traversal = Collector.TraversalSpec(name="v", path="view", skip=False, type=vim.view.ContainerView)
    spec = Collector.FilterSpec(
        propSet=[Collector.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
        objectSet=[Collector.ObjectSpec(obj=container, skip=True, selectSet=[traversal])],
    )
    service = vcenter.content.propertyCollector
    page = service.RetrievePropertiesEx([spec], Collector.RetrieveOptions(maxObjects=2))
    seen = [o.obj for o in page.objects]
    assert len(seen) == 2
    while page.token:
        page = service.ContinueRetrievePropertiesEx(page.token)
        seen += [o.obj for o in page.objects]
    assert vms <= set(seen)
    assert len(seen) == len(set(seen))
    options = Collector.WaitOptions(maxObjectUpdates=3, maxWaitSeconds=0)
    update = collector.WaitForUpdatesEx("", options)
    entered = [o.obj for f in update.filterSet for o in f.objectSet]
    assert (len(entered), update.truncated) == (3, True)
    while update.truncated:
        update = collector.WaitForUpdatesEx(update.version, options)
        entered += [o.obj for f in update.filterSet for o in f.objectSet]
    assert sorted(o._moId for o in entered) == sorted(o._moId for o in seen)
    collector.Destroy()


def test_an_unset_property_is_read_as_none(vcenter: VCenter) -> None:
    assert vcenter.create("unset").snapshot is None


# -- datastore files


def http_call(lab: LabProcess, method: str, path: str, *, cookie: str = "", body: bytes | None = None) -> Any:
    connection = http.client.HTTPSConnection("127.0.0.1", lab.port, context=insecure())
    headers = {"Cookie": cookie} if cookie else {}
    connection.request(method, f"/folder/{path}?dcPath=DC0&dsName=LocalDS_0", body=body, headers=headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_datastore_files_need_a_session(lab: LabProcess, vcenter: VCenter) -> None:
    assert http_call(lab, "PUT", "up/file", body=b"x")[0] == 401
    cookie = vcenter.stub.cookie
    assert http_call(lab, "PUT", "up/file", cookie=cookie, body=b"content")[0] == 201
    assert (lab.datastore / "up/file").read_bytes() == b"content"
    assert http_call(lab, "GET", "up/file", cookie=cookie) == (200, b"content")
    assert http_call(lab, "GET", "../../etc/passwd", cookie=cookie)[0] in (400, 404)
    assert http_call(lab, "DELETE", "up/file", cookie=cookie)[0] == 204
    assert http_call(lab, "GET", "up/file", cookie=cookie)[0] == 404


def test_a_service_ticket_opens_one_file_once(lab: LabProcess, vcenter: VCenter) -> None:
    request = vim.SessionManager.HttpServiceRequestSpec(
        method="httpPut", url=f"https://127.0.0.1:{lab.port}/folder/ticket?dcPath=DC0&dsName=LocalDS_0"
    )
    manager = vcenter.content.sessionManager
    cookie = f"vmware_cgi_ticket={manager.AcquireGenericServiceTicket(request).id}"
    assert http_call(lab, "PUT", "ticket", cookie=cookie, body=b"x")[0] == 201
    assert http_call(lab, "PUT", "ticket", cookie=cookie, body=b"x")[0] == 401
    cookie = f"vmware_cgi_ticket={manager.AcquireGenericServiceTicket(request).id}"
    assert http_call(lab, "PUT", "other", cookie=cookie, body=b"x")[0] == 401
