"""Where a path takes no UDP GSO, a viewer gets every packet by itself, and GSO is not tried again for him."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gso_play import FRAMES, PACKETS, VIEWERS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makes sends fail, to be loaded before libc."""
    if shutil.which("cc") is None and not os.environ.get("CI"):
        pytest.skip("there is no C compiler: apt-get install gcc")
    built = tmp_path_factory.mktemp("gso") / "refused.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", str(built), str(HERE / "gso_refused.c"), "-ldl"]
    subprocess.run(command, check=True)
    return built


@pytest.mark.parametrize("error", [errno.EIO, errno.EINVAL, errno.EMSGSIZE], ids=errno.errorcode.get)
def test_a_viewer_whose_path_takes_no_runs_gets_every_packet_in_order(library: Path, error: int) -> None:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(HERE / "gso_play.py"), str(error)],
        env=os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["got"] == [list(range(FRAMES * PACKETS))] * VIEWERS
    assert found["sent"] == [FRAMES * PACKETS] * VIEWERS
    (first, sent), *later = found["runs"]
    assert 1 <= first <= PACKETS, "it was tried"
    assert [refused for refused, _ in later] == [first] * (FRAMES - 1), "and not again"
    assert later[-1][1] - sent >= (FRAMES - 1) * (VIEWERS - 1), "the others' packets still go out in runs"
