from pathlib import Path

from pdcluster_worker.executor.paddle_environment import is_amd, prepare


def test_threads_are_set_for_every_library() -> None:
    environment: dict[str, str] = {}
    assert prepare(3, environment) == 3
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        assert environment[name] == "3"


def test_default_is_every_usable_core() -> None:
    assert prepare(None, {}) >= 1


def test_what_the_user_set_stays() -> None:
    environment = {"KMP_BLOCKTIME": "200", "MKL_DEBUG_CPU_TYPE": "4"}
    prepare(1, environment)
    assert (environment["KMP_BLOCKTIME"], environment["MKL_DEBUG_CPU_TYPE"]) == ("200", "4")


def test_amd_is_known_by_its_vendor(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("vendor_id\t: AuthenticAMD\n")
    assert is_amd(info)
    info.write_text("vendor_id\t: GenuineIntel\n")
    assert not is_amd(info)
    assert not is_amd(tmp_path / "absent")
