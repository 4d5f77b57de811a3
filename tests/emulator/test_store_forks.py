"""A process that was forked while a store was open: the parent keeps the store, and the child does no harm."""

import asyncio
import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

CLIENT = """
    import asyncio, os, sys
    from tb_mqtt_client import DeviceClient
    PATH = sys.argv[1]
    def client():
        return DeviceClient({"host": "127.0.0.1", "port": 1, "access_token": "T", "store": {"path": PATH, "min_free": 0}})
"""


def start(body, path):
    """Start a program that can make a client with a store."""
    program = textwrap.dedent(CLIENT) + textwrap.dedent(body)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True, env=environment)


def run(body, path):
    process = start(body, path)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    return out.splitlines()


async def test_a_child_cannot_use_the_store_and_does_not_harm_it(tmp_path):
    out = await asyncio.to_thread(
        run,
        """
        async def main():
            one = client()
            await one.start()
            [first] = await one.send_timeseries({"a": 1}, wait_for_publish=False)
            await first.stored
            store = one._engine.store
            child = os.fork()
            if child == 0:
                try:
                    store.accept(one.encode_timeseries({"child": 1}), store.create_delivery())
                except OSError as error:
                    print(type(error).__name__, "spawn" in str(error), flush=True)
                closing = store.close()
                try:
                    closing.send(None)
                except StopIteration:
                    print("closed", flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            [second] = await one.send_timeseries({"b": 1}, wait_for_publish=False)
            await second.stored
            try:
                await client().start()
            except OSError as error:
                print(type(error).__name__, flush=True)
            await one.stop()
            again = client()
            await again.start()
            print(again.statistics.recovered, flush=True)
            await again.stop()
        asyncio.run(main())
        """,
        tmp_path / "queue",
    )
    assert out == ["StoreInUseError True", "closed", "StoreInUseError", "2"]


async def test_a_child_does_not_keep_the_lock(tmp_path):
    """Another process can open the store after the end of the parent, while the child runs."""
    parent = start(
        """
        async def main():
            one = client()
            await one.start()
            await (await one.send_timeseries({"a": 1}, wait_for_publish=False))[0].stored
            if os.fork() == 0:
                os.write(1, b"child\\n")  # in one piece, which print() is not with PYTHONUNBUFFERED
                sys.stdin.read()
                os._exit(0)
            os.write(1, b"parent\\n")
            os._exit(0)
        sys.stdin = os.fdopen(0)
        asyncio.run(main())
        """,
        tmp_path / "queue",
    )
    try:
        assert {parent.stdout.readline(), parent.stdout.readline()} == {"child\n", "parent\n"}
        assert await asyncio.to_thread(parent.wait, 60) == 0
        out = await asyncio.to_thread(
            run,
            """
            async def main():
                one = client()
                await one.start()
                print(one.statistics.recovered)
                await one.stop()
            asyncio.run(main())
            """,
            tmp_path / "queue",
        )
        assert out == ["1"]
    finally:
        parent.stdout.close()
        parent.kill()
        parent.wait()


async def test_a_child_of_a_synchronous_client(tmp_path):
    """Its methods raise an error, the child can use another store, and the parent's store is not disturbed."""
    out = await asyncio.to_thread(
        run,
        """
        from tb_mqtt_client import StoreInUseError
        from tb_mqtt_client.sync import DeviceClient

        def synchronous(path):
            store = {"path": path, "durability": "always", "min_free": 0}
            return DeviceClient({"host": "127.0.0.1", "port": 1, "access_token": "T", "store": store})

        one = synchronous(PATH)
        one.start()
        one.send_timeseries({"a": 1}, wait=False)
        child = os.fork()
        if child == 0:
            for use in (one.start, one.flush, one.stop, lambda: one.send_timeseries({"child": 1}, wait=False)):
                try:
                    use()
                except RuntimeError as error:
                    print("child" in str(error), flush=True)
            try:
                synchronous(PATH).start()
            except StoreInUseError:
                print("in use", flush=True)
            with_own = synchronous(PATH + " of child")
            with_own.start()
            with_own.send_timeseries({"b": 1}, wait=False)
            with_own.stop()
            print(with_own.statistics.kept, flush=True)
            sys.exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        one.send_timeseries({"c": 1}, wait=False)
        one.stop()
        print(one.statistics.kept, flush=True)
        again = synchronous(PATH)
        again.start()
        print(again.statistics.recovered, flush=True)
        again.stop()
        """,
        tmp_path / "queue",
    )
    assert out == ["True"] * 4 + ["in use", "1", "2", "2"]
