"""In which order the files run."""

from tests.conftest import in_turns


def test_suites_take_turns_and_what_is_pure_comes_last():
    kube = [f"tests/kube/test_{number}.py" for number in range(4)]
    plane = [f"tests/data_plane/test_{number}.py" for number in range(2)]
    pure = ["tests/unit/a/test_b.py", "benchmarks/tests/test_c.py"]
    assert in_turns([*pure, *plane, *kube]) == [
        "tests/data_plane/test_0.py",
        "tests/kube/test_0.py",
        "tests/kube/test_1.py",
        "tests/data_plane/test_1.py",
        "tests/kube/test_2.py",
        "tests/kube/test_3.py",
        *pure,
    ]
