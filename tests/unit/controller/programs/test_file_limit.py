"""How many files a program may have open."""

import subprocess
import sys

RAISES = """
import resource
from controller.programs.lifetime import raise_file_limit
raise_file_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_program_takes_all_the_files_that_it_may_have():
    limited = ["sh", "-c", 'ulimit -Sn 100 && ulimit -Hn 300 && exec "$0" -c "$1"', sys.executable, RAISES]
    assert subprocess.run(limited, capture_output=True, text=True, check=True).stdout.split() == ["300", "300"]
