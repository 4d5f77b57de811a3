"""Which chunk is asked for next, what becomes of each answer, and when it is given up: no broker, no waiting."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tb_mqtt_client.common.exceptions import ConnectionLostError, TBMQTTError
from tb_mqtt_client.constants.firmware import PackageKind
from tb_mqtt_client.service.ota import download as download_module
from tb_mqtt_client.service.ota.download import ATTEMPTS, PackageChunks, PackageRefusedError, PackageUpdateError
from tb_mqtt_client.service.ota.files import PackageFile, new_checksum

IMAGE = bytes(range(256)) * 4


class Chunks:
    """A platform that has the image; ``faults`` are what happens first at each chunk, in turn."""

    def __init__(self, faults=None):
        self.faults = {number: list(answers) for number, answers in (faults or {}).items()}
        self.request_id = 0
        self.asked = []

    async def get(self, number, chunk_size):
        self.asked.append((self.request_id, number, chunk_size))
        await asyncio.sleep(0)
        if self.faults.get(number):
            fault = self.faults[number].pop(0)
            if isinstance(fault, Exception):
                raise fault
            return fault
        return IMAGE[number * chunk_size : (number + 1) * chunk_size]

    def use_new_request_id(self):
        self.request_id += 1


@pytest.fixture
def file(tmp_path):
    file = PackageFile(tmp_path, "image", new_checksum("MD5"))
    file.open()
    yield file
    file.discard()


async def download(chunks, file, chunk_size=100):
    progress = []

    async def on_progress(received):
        progress.append(received)

    await download_module.download(chunks, file, len(IMAGE), chunk_size, on_progress)
    assert file.read() == IMAGE
    return progress


@pytest.mark.parametrize("chunk_size", [1, 100, 256, 1023, 1024, 1025, 65536])
async def test_defect_62_in_chunks(file, chunk_size):
    chunks = Chunks()
    progress = await download(chunks, file, chunk_size)
    assert [number for _, number, _ in chunks.asked] == list(range(-(-len(IMAGE) // chunk_size)))
    assert progress == [min(len(IMAGE), (number + 1) * chunk_size) for _, number, _ in chunks.asked]


async def test_contract_9_ota_a_missing_chunk_is_asked_for_again(file):
    chunks = Chunks({3: [TimeoutError(), TimeoutError()]})
    await download(chunks, file)
    assert [entry for entry in chunks.asked if entry[1] == 3] == [(1, 3, 100)] * 3


@pytest.mark.parametrize("fault", [ConnectionLostError("cut"), PackageRefusedError("FAILURE"), b"", b"short", b"x" * 101])
async def test_after_other_faults_it_goes_on_with_a_new_request_id(file, fault):
    """A cut connection, a trouble of the platform, or an evicted package: what was kept by the old id is of no use."""
    chunks = Chunks({3: [fault]})
    await download(chunks, file)
    assert chunks.asked[2:6] == [(1, 2, 100), (1, 3, 100), (2, 3, 100), (2, 4, 100)]


async def test_too_large_chunks_become_smaller(file):
    chunks = Chunks({0: [PackageRefusedError("PAYLOAD_TOO_LARGE")] * 8})
    await download(chunks, file, 25_600)
    assert chunks.asked[6:11] == [(7, 0, 400), (8, 0, 200), (9, 0, 100), (9, 1, 100), (9, 2, 100)]


async def test_a_platform_that_takes_no_chunk_size_at_all(file):
    chunks = Chunks({0: [PackageRefusedError("PAYLOAD_TOO_LARGE")] * 100})
    with pytest.raises(PackageUpdateError, match=r"^chunk 0: the platform says PAYLOAD_TOO_LARGE$"):
        await download(chunks, file, 32768)
    assert [size for *_, size in chunks.asked][-ATTEMPTS:] == [1] * ATTEMPTS


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (TimeoutError(), "chunk 3: the platform does not answer"),
        (ConnectionLostError("cut"), "chunk 3: cut"),
        (b"", "chunk 3: it has 0 bytes instead of 100"),
        (PackageRefusedError("FAILURE"), "chunk 3: the platform says FAILURE"),
        (PackageRefusedError("PAYLOAD_TOO_LARGE"), "chunk 3: the platform says PAYLOAD_TOO_LARGE"),
    ],
)
async def test_given_up_after_some_attempts_in_a_row(file, fault, text):
    chunks = Chunks({3: [fault] * ATTEMPTS})
    with pytest.raises(PackageUpdateError, match=f"^{text}$"):
        await download(chunks, file)
    assert len([entry for entry in chunks.asked if entry[1] == 3]) == ATTEMPTS


async def test_a_chunk_that_comes_ends_the_row(file):
    faults = {number: [TimeoutError()] * (ATTEMPTS - 1) for number in range(4)}
    await download(Chunks(faults), file)


async def test_contract_9_ota_not_found_is_final(file):
    chunks = Chunks({0: [PackageRefusedError("NOT_FOUND")]})
    with pytest.raises(PackageUpdateError, match=r"^chunk 0: the platform says NOT_FOUND$"):
        await download(chunks, file)
    assert len(chunks.asked) == 1


async def test_a_server_that_knows_no_packages_is_not_asked_again(file):
    chunks = Chunks({0: [TBMQTTError("refused")]})
    with pytest.raises(TBMQTTError, match=r"^refused$"):
        await download(chunks, file)


@given(st.data(), st.integers(1, 300))
def test_faults_in_any_order(tmp_path_factory, data, chunk_size):
    """Whatever happens between the chunks, the image is the platform's or the update has failed."""
    fault = st.sampled_from([TimeoutError(), ConnectionLostError("cut"), PackageRefusedError("FAILURE"), b"", b"x" * 301])
    last = (len(IMAGE) - 1) // chunk_size
    faults = data.draw(st.dictionaries(st.integers(0, last), st.lists(fault, max_size=ATTEMPTS)))
    hopeless = any(len(row) == ATTEMPTS for row in faults.values())

    async def attempt():
        file = PackageFile(tmp_path_factory.mktemp("image"), "image", new_checksum("MD5"))
        file.open()
        try:
            await download(Chunks(faults), file, chunk_size)
        except PackageUpdateError:
            assert hopeless
        else:
            assert not hopeless
        finally:
            file.discard()

    asyncio.run(attempt())


# What comes in.


class Manager:
    """Of the connection, what a request needs; publishes nothing."""

    connections = 1

    def __init__(self):
        self.handlers = {}
        self.published = asyncio.Queue()
        self.unsubscribed = []

    def register_handler(self, topic_filter, handler):
        self.handlers[topic_filter] = handler

    def unregister_handler(self, topic_filter):
        del self.handlers[topic_filter]

    def session_future(self):
        return asyncio.get_running_loop().create_future()

    async def wait_writable_for_service(self): ...

    def expect_disconnect(self): ...

    async def subscribe(self, _topic): ...

    def send_unsubscribe(self, topic):
        self.unsubscribed.append(topic)

    def publish_now(self, message):
        self.published.put_nowait(message)


class Unlimited:
    def try_take(self, _message):
        return 0.0


def new_chunks(manager, kind=PackageKind.FIRMWARE):
    ids = iter(range(7, 1000))
    return PackageChunks(manager, Unlimited(), kind, 60.0, lambda: next(ids))


near_topics = st.sampled_from(
    [
        "v2/fw/response/7/chunk/1", "v2/fw/response/8/chunk/0", "v2/fw/response/07/chunk/0", "v2/fw/response/+7/chunk/0",
        "v2/fw/response/7/chunk/-0", "v2/fw/response/7/chunk/", "v2/sw/response/7/chunk/0", "v2/fw/response/7/chunk/0/",
        "v2/fw/response/٧/chunk/0", "v2/fw/request/7/chunk/0",
    ]
)  # fmt: skip


@given(st.lists(st.tuples(near_topics | st.text(), st.binary())), st.binary())
def test_defect_61_only_the_chunk_that_was_asked_for_is_taken(others, payload):
    """Request id and number count: whatever else comes, before or after, the answer is the message on the one topic."""

    async def ask():
        manager = Manager()
        chunks = new_chunks(manager)
        receive = manager.handlers["v2/fw/response/+/chunk/+"]
        for topic, other in others:
            await receive(topic, other)
        task = asyncio.ensure_future(chunks.get(0, 100))
        message = await manager.published.get()
        assert (message.topic, message.payload, message.qos) == ("v2/fw/request/7/chunk/0", b"100", 1)
        for topic, other in others:
            await receive(topic, other)
        assert not task.done()
        await receive("v2/fw/response/7/chunk/0", payload)
        await receive("v2/fw/response/7/chunk/0", b"a second time")
        assert await task == payload
        for topic, other in others:
            await receive(topic, other)
        chunks.close()
        assert manager.handlers == {}

    asyncio.run(ask())


@given(st.binary(), st.sampled_from(["fw", "sw"]))
def test_contract_9_ota_errors_of_any_bytes(payload, kind):
    """They end the request that waits, and are nothing when none does. Those of software come on the firmware's topic too."""

    async def ask():
        manager = Manager()
        chunks = new_chunks(manager, PackageKind(kind))
        topics = [topic for topic in manager.handlers if topic.endswith("/error")]
        assert topics == (["v2/fw/error"] if kind == "fw" else ["v2/fw/error", "v2/sw/error"])
        for topic in topics:
            await manager.handlers[topic](topic, payload)
            task = asyncio.ensure_future(chunks.get(0, 100))
            await manager.published.get()
            chunks._session_end.cancel()
            await manager.handlers[topic](topic, payload)
            await manager.handlers[topic](topic, payload)
            with pytest.raises(PackageRefusedError) as refused:
                await task
            assert len(refused.value.refusal) <= 100
            chunks._session = 0
        chunks.close()

    asyncio.run(ask())


async def test_the_first_request_of_an_id_is_counted_and_later_ones_are_not():
    """As the platform does (docs/platform_contract.md, section 5)."""
    manager, counted = Manager(), []
    chunks = new_chunks(manager)
    chunks._admission.try_take = lambda message: counted.append(message.topic) or 0.0
    for number, new_id in ((0, False), (1, False), (1, True), (2, False)):
        if new_id:
            chunks.use_new_request_id()
        task = asyncio.ensure_future(chunks.get(number, 100))
        message = await manager.published.get()
        await manager.handlers["v2/fw/response/+/chunk/+"](message.topic.replace("request", "response"), b"")
        await task
    assert counted == ["v2/fw/request/7/chunk/0", "v2/fw/request/8/chunk/1"]
    chunks.close()
    chunks.close()
    assert manager.unsubscribed == ["v2/fw/response/+/chunk/+", "v2/fw/error"]


async def test_a_request_waits_for_the_limits():
    manager = Manager()
    chunks = new_chunks(manager)
    waits, waited = [0.5, 0.0], []

    async def wait(seconds):
        waited.append(seconds)

    chunks._admission.try_take = lambda _: waits.pop(0)
    chunks._admission.wait = wait
    task = asyncio.ensure_future(chunks.get(0, 100))
    await manager.published.get()
    assert waited == [0.5]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    chunks.close()
