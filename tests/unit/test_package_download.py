"""Which chunk is requested next, which messages are responses, and when a download fails: without a server and without waiting."""

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
    """A platform that has the image. ``faults`` has, for each chunk, errors and wrong chunks of the first requests."""

    def __init__(self, faults=None):
        self.faults = {number: list(responses) for number, responses in (faults or {}).items()}
        self.request_id = 0
        self.requested = []

    async def get(self, number, chunk_size):
        self.requested.append((self.request_id, number, chunk_size))
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
async def test_defect_62_an_image_is_downloaded_in_chunks(file, chunk_size):
    chunks = Chunks()
    progress = await download(chunks, file, chunk_size)
    assert [number for _, number, _ in chunks.requested] == list(range(-(-len(IMAGE) // chunk_size)))
    assert progress == [min(len(IMAGE), (number + 1) * chunk_size) for _, number, _ in chunks.requested]


async def test_contract_9_ota_a_missing_chunk_is_requested_again(file):
    chunks = Chunks({3: [TimeoutError(), TimeoutError()]})
    await download(chunks, file)
    assert [entry for entry in chunks.requested if entry[1] == 3] == [(1, 3, 100)] * 3


@pytest.mark.parametrize("fault", [ConnectionLostError("cut"), PackageRefusedError("FAILURE"), b"", b"short", b"x" * 101])
async def test_after_other_faults_the_download_continues_with_a_new_request_id(file, fault):
    """After a lost connection, a failure of the platform or an eviction, the package cached for the old id is unusable."""
    chunks = Chunks({3: [fault]})
    await download(chunks, file)
    assert chunks.requested[2:6] == [(1, 2, 100), (1, 3, 100), (2, 3, 100), (2, 4, 100)]


async def test_too_large_chunks_become_smaller(file):
    chunks = Chunks({0: [PackageRefusedError("PAYLOAD_TOO_LARGE")] * 8})
    await download(chunks, file, 25_600)
    assert chunks.requested[6:11] == [(7, 0, 400), (8, 0, 200), (9, 0, 100), (9, 1, 100), (9, 2, 100)]


async def test_a_platform_that_refuses_every_chunk_size(file):
    chunks = Chunks({0: [PackageRefusedError("PAYLOAD_TOO_LARGE")] * 100})
    with pytest.raises(PackageUpdateError, match=r"^chunk 0: the platform reported PAYLOAD_TOO_LARGE$"):
        await download(chunks, file, 32768)
    assert [size for *_, size in chunks.requested][-ATTEMPTS:] == [1] * ATTEMPTS


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (TimeoutError(), "chunk 3: the platform did not respond"),
        (ConnectionLostError("cut"), "chunk 3: cut"),
        (b"", "chunk 3: it has 0 bytes instead of 100"),
        (PackageRefusedError("FAILURE"), "chunk 3: the platform reported FAILURE"),
        (PackageRefusedError("PAYLOAD_TOO_LARGE"), "chunk 3: the platform reported PAYLOAD_TOO_LARGE"),
    ],
)
async def test_a_download_fails_after_some_failed_attempts_in_a_row(file, fault, text):
    chunks = Chunks({3: [fault] * ATTEMPTS})
    with pytest.raises(PackageUpdateError, match=f"^{text}$"):
        await download(chunks, file)
    assert len([entry for entry in chunks.requested if entry[1] == 3]) == ATTEMPTS


async def test_a_received_chunk_resets_the_count_of_attempts(file):
    faults = {number: [TimeoutError()] * (ATTEMPTS - 1) for number in range(4)}
    await download(Chunks(faults), file)


async def test_contract_9_ota_not_found_is_final(file):
    chunks = Chunks({0: [PackageRefusedError("NOT_FOUND")]})
    with pytest.raises(PackageUpdateError, match=r"^chunk 0: the platform reported NOT_FOUND$"):
        await download(chunks, file)
    assert len(chunks.requested) == 1


async def test_a_server_that_does_not_support_packages_gets_one_request(file):
    chunks = Chunks({0: [TBMQTTError("refused")]})
    with pytest.raises(TBMQTTError, match=r"^refused$"):
        await download(chunks, file)


@given(st.data(), st.integers(1, 300))
def test_faults_in_any_order(tmp_path_factory, data, chunk_size):
    """After any faults, the image is the platform's or the download has failed."""
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


# Requests and responses.


class Manager:
    """The part of ``MQTTManager`` that requests need. Publishes nothing."""

    def __init__(self):
        self.connections = 1
        self.session_futures = []
        self.handlers = {}
        self.published = asyncio.Queue()
        self.unsubscribed = []

    def register_handler(self, topic_filter, handler):
        self.handlers[topic_filter] = handler

    def unregister_handler(self, topic_filter):
        del self.handlers[topic_filter]

    def session_future(self):
        self.session_futures.append(asyncio.get_running_loop().create_future())
        return self.session_futures[-1]

    async def wait_writable_for_service(self): ...

    def expect_disconnect(self): ...

    async def subscribe(self, _topic): ...

    def send_unsubscribe(self, topic):
        self.unsubscribed.append(topic)

    def publish_now(self, item):
        self.published.put_nowait(item.message)

    def lose_connection(self):
        """End the session, and begin another one."""
        futures, self.session_futures = self.session_futures, []
        for future in futures:
            if not future.done():
                future.set_exception(ConnectionLostError("lost"))
        self.connections += 1


class Admission:
    """Admits requests after ``waits`` seconds, in turn, and at once when none is left. Notes the topics, and the pauses."""

    def __init__(self, *waits):
        self.waits = list(waits)
        self.admitted = []
        self.waited = []

    def try_take(self, item):
        wait = self.waits.pop(0) if self.waits else 0.0
        if not wait:
            self.admitted.append(item.message.topic)
        return wait

    async def wait(self, seconds):
        self.waited.append(seconds)


def new_chunks(manager, admission, kind=PackageKind.FIRMWARE):
    ids = iter(range(7, 1000))
    return PackageChunks(manager, admission, kind, 60.0, lambda: next(ids))


near_topics = st.sampled_from(
    [
        "v2/fw/response/7/chunk/1", "v2/fw/response/8/chunk/0", "v2/fw/response/07/chunk/0", "v2/fw/response/+7/chunk/0",
        "v2/fw/response/7/chunk/-0", "v2/fw/response/7/chunk/", "v2/sw/response/7/chunk/0", "v2/fw/response/7/chunk/0/",
        "v2/fw/response/٧/chunk/0", "v2/fw/request/7/chunk/0",
    ]
)  # fmt: skip


@given(st.lists(st.tuples(near_topics | st.text(), st.binary())), st.binary())
def test_defect_61_only_the_requested_chunk_is_accepted(others, payload):
    """The response is the message with request id and number of the request. Messages on other topics are ignored."""

    async def request():
        manager = Manager()
        chunks = new_chunks(manager, Admission())
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

    asyncio.run(request())


@given(st.binary(), st.sampled_from(["fw", "sw"]))
def test_contract_9_ota_errors_of_any_bytes(payload, kind):
    """They end the pending request, and are ignored without one. Errors of software also arrive on the firmware's topic."""

    async def request():
        manager = Manager()
        chunks = new_chunks(manager, Admission(), PackageKind(kind))
        topics = [topic for topic in manager.handlers if topic.endswith("/error")]
        assert topics == (["v2/fw/error"] if kind == "fw" else ["v2/fw/error", "v2/sw/error"])
        for topic in topics:
            await manager.handlers[topic](topic, payload)
            task = asyncio.ensure_future(chunks.get(0, 100))
            await manager.published.get()
            await manager.handlers[topic](topic, payload)
            await manager.handlers[topic](topic, payload)
            # The refused request ends with the connection.
            await asyncio.sleep(0)
            assert not task.done()
            manager.lose_connection()
            with pytest.raises(PackageRefusedError) as refused:
                await task
            assert len(refused.value.refusal) <= 100
        chunks.close()

    asyncio.run(request())


async def test_the_first_request_of_an_id_is_counted_and_later_ones_are_not():
    """The platform counts in this way (docs/platform_contract.md, section 5)."""
    manager, admission = Manager(), Admission()
    chunks = new_chunks(manager, admission)
    for number, new_id in ((0, False), (1, False), (1, True), (2, False)):
        if new_id:
            chunks.use_new_request_id()
        task = asyncio.ensure_future(chunks.get(number, 100))
        message = await manager.published.get()
        await manager.handlers["v2/fw/response/+/chunk/+"](message.topic.replace("request", "response"), b"")
        await task
    assert admission.admitted == ["v2/fw/request/7/chunk/0", "v2/fw/request/8/chunk/1"]
    chunks.close()
    chunks.close()
    assert manager.unsubscribed == ["v2/fw/response/+/chunk/+", "v2/fw/error"]


async def test_a_request_waits_for_the_limits():
    manager, admission = Manager(), Admission(0.5)
    chunks = new_chunks(manager, admission)
    task = asyncio.ensure_future(chunks.get(0, 100))
    await manager.published.get()
    assert (admission.waited, admission.admitted) == ([0.5], ["v2/fw/request/7/chunk/0"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    chunks.close()
