"""The documentation builds without a warning: a reference that leads nowhere is one."""

import pathlib

import forked

ROOT = pathlib.Path(__file__).parents[1]


def test_the_pages_build(tmp_path):
    arguments = ["-W", "--keep-going", "-q", "docs", str(tmp_path / "html")]
    program = f"import sys; from sphinx.cmd.build import main; sys.exit(main({arguments}))"
    ended = forked.run_code(program, ROOT)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "html" / "index.html").is_file()
