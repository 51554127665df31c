"""What the terminal's tests share: real footage, and `async def` tests run on a loop of their own."""

import asyncio
import inspect

import pytest

from dialcast.footage import Footage, footage


@pytest.fixture(scope="session")
def real_footage() -> Footage:
    """Real clips and voices, fetched once."""
    return footage()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test to its end."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True
