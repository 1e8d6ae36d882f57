"""docs/guide.md, pasted into the REPL that it names, prints what it says."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

PAGE: Final = Path(__file__).parents[2] / "docs" / "guide.md"
BLOCK: Final = re.compile(r"```python\n(.*?)```\n(?:```\n(.*?)```\n)?", re.DOTALL)
PROMPTS: Final = re.compile(r"^(?:>>> |\.\.\. )+", re.MULTILINE)
END: Final = "-- the end of a block --\n"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the REPL of 3.13 wants a terminal")
def test_every_block_of_the_guide_prints_what_stands_below_it(tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) > 10
    pasted = "".join(f"{code}\nprint({END.strip()!r})\n" for code, _ in blocks)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "asyncio"],
        input=pasted,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
    )
    assert not re.search("Traceback|Error|Warning", done.stderr), done.stderr
    *printed, rest = PROMPTS.sub("", done.stdout).split(END)
    assert rest.strip() == ""
    assert len(printed) == len(blocks)
    same = doctest.OutputChecker().check_output
    for (code, wanted), got in zip(blocks, printed, strict=True):
        assert same(wanted, got, doctest.ELLIPSIS), f"{code}\nprinted {got}"
