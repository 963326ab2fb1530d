"""A command that was called wrongly is told so in one line with exit code 2, at both doors."""

import runpy

import pytest

# An unknown option, a missing argument, a bad type; then what else may be mistyped.
WRONG = [
    (
        "data build --wrokers 2",
        "mae data build: no such option: --wrokers; did you mean --workers?",
    ),
    ("fit --response top1", "mae fit: table: missing argument"),
    ("data build --workers x", "mae data build: --workers: must be a valid integer, got 'x'"),
    (
        "data build --workers 0",
        "mae data build: --workers: must be greater than or equal to 1, got",
    ),
    ("fit runs.csv other.csv", "mae fit: got unexpected extra argument(s) (other.csv)"),
    ("cost --resolution", "mae cost: option '--resolution' requires an argument"),
    ("data buidl", "mae data: no such command 'buidl'; did you mean 'build'?"),
    ("study step x", "mae study step: --out: missing option"),
    ("--colour", "mae: no such option: --colour"),
]
# These two go through argparse, which needs torch alone.
WRONG_AT_THE_BARE_DOOR = [
    ("study piece pocket --out x --fast", "mae study piece: unrecognized arguments: --fast"),
    ("bench gpu", "mae bench gpu: the following arguments are required: --out"),
    ("study piece pocket --minutes x", "mae study piece: --minutes: invalid float value: 'x'"),
]


@pytest.fixture
def called(monkeypatch, capsys):
    """Run `python -m mae_lib` in this process; return exit code, stdout and stderr."""

    def run(words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["mae", *words.split()])
        with pytest.raises(SystemExit) as caught:
            runpy.run_module("mae_lib", run_name="__main__")
        shown = capsys.readouterr()
        return caught.value.code or 0, shown.out, shown.err

    return run


@pytest.mark.parametrize(("words", "says"), WRONG + WRONG_AT_THE_BARE_DOOR)
def test_a_wrong_call_is_one_line_that_names_command_option_and_help(called, words, says):
    code, out, said = called(words)
    assert (code, out) == (2, "")
    assert said.startswith(says)
    command = says.partition(":")[0]
    assert said.endswith(f"; see {command} --help\n")
    assert said.count("\n") == 1


def test_both_doors_word_a_wrong_call_alike(monkeypatch, capsys):
    from mae_lib.cli import main

    for words, says in WRONG_AT_THE_BARE_DOOR:
        monkeypatch.setattr("sys.argv", ["mae", *words.split()])
        with pytest.raises(SystemExit) as caught:
            main.main()
        assert caught.value.code == 2
        assert capsys.readouterr().err.startswith(says)


def test_no_command_is_answered_with_the_help_and_help_is_no_error(called):
    code, out, said = called("data")
    assert (code, said) == (2, "")
    assert "build" in out
    for words in ("data build --help", "bench gpu --help", "--version"):
        code, out, said = called(words)
        assert (code, said) == (0, "")
        assert out
