"""What a shell is offered behind `baq`: the same names as there are, quickly, or silence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.cli import completion, typed_folders
from baq_cli.cli.main import main
from baq_cli.data.suite import SUITE
from baq_cli.recipes import method_files
from baq_cli.recipes.closed import AgentConfig
from baq_cli.recipes.keys import keys_of
from baq_cli.recipes.load import parse_overrides, resolve
from baq_cli.recipes.names import recipe_names
from baq_cli.recipes.schema import ChosenFrom, RunConfig, TuneConfig

BAQ = Path(sys.executable).with_name("baq")
HEAVY = {"torch", "numpy", "gymnasium", "minari", "matplotlib", "yaml"}
"""pydantic is not among them: Typer itself imports it for any words."""
Offered = Callable[..., list[str]]

# -- what files declare is what their classes are


def test_methods_are_those_of_the_registry() -> None:
    assert method_files.method_names() == sorted(METHODS)
    titles = {name: method.title for name, method in METHODS.items()}
    assert method_files.method_titles() == titles
    for name, method in METHODS.items():
        has = [method_files.learns(name, phase) for phase in ("offline", "online")]
        assert has == [method.learns_offline, method.learns_online]


@pytest.mark.parametrize("name", METHODS)
def test_keys_of_a_method_are_those_of_its_configuration(name: str) -> None:
    declared = method_files.method_keys(name)
    real = keys_of(METHODS[name].Config)
    assert [(key.name, key.meaning) for key in declared] == [(k.name, k.meaning) for k in real]
    for mine, true in zip(declared, real, strict=True):
        assert mine.default == in_yaml(true.default)
        words = re.split(r", | or ", true.type)
        kinds = {"integer", "number", "text", *(word for word in words if word.startswith("list"))}
        assert set(mine.choices) == set(words) - kinds
        for value in mine.values():
            layer = parse_overrides([f"{name}.{mine.name}={value}"])
            resolve([{"algo": name} | layer], method_configs())


def test_keys_outside_methods_are_those_of_a_run() -> None:
    assert [key.name for key in method_files.run_keys()] == list(names_in(RunConfig))
    shared = [key.name for key in method_files.shared_keys()]
    assert shared == list(AgentConfig.model_fields)


def in_yaml(default: Any) -> str:
    if isinstance(default, str):
        return default
    return json.dumps(default, separators=(",", ":"))


def names_in(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the keys of a configuration, those of sections in it last."""
    inside = {}
    for name, field in model.model_fields.items():
        parts = [field.annotation, *getattr(field.annotation, "__args__", ())]
        models = [p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)]
        if models:
            inside[name] = models[0]
        else:
            yield prefix + name
    for name, section in inside.items():
        yield from names_in(section, f"{prefix}{name}.")


# -- what is offered


@pytest.fixture
def offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Offered:
    """Press Tab behind words as bash has them, in a folder of one's own; the last is unfinished."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("HOME", str(tmp_path))

    def press(*words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["baq"])
        monkeypatch.setenv(completion.VARIABLE, "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(("baq", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        with pytest.raises(SystemExit) as end:
            main()
        out, said = capsys.readouterr()
        assert (end.value.code, said) == (0, "")
        return out.split("\n")[: -1 if out.endswith("\n") else None]

    return lambda *words: [word for word in press(*words) if word]


def test_methods_are_offered_wherever_one_is_asked_for(offered: Offered) -> None:
    assert offered("pretrain", "--algo", "") == sorted(METHODS)
    assert offered("pretrain", "--algo", "=", "iq") == ["iql"], "as bash has --algo=iq"
    assert offered("--debug", "methods", "show", "cal") == ["cal_ql"]
    listed = offered("compare", "--algos", "iql,c")
    assert listed == ["iql,cal_ql", "iql,cql"]
    assert "iql,iql" not in offered("bench", "--algo", "iql,")


def test_what_a_search_may_choose_by_is_offered(offered: Offered) -> None:
    assert offered("tune", "--from", "") == [*get_args(ChosenFrom)]
    assert [key.name for key in method_files.tune_keys()] == list(TuneConfig.model_fields)


def test_commands_of_a_group_with_a_default_are_offered_beside_its_options(
    offered: Offered,
) -> None:
    assert offered("compare", "st") == ["status"]
    assert offered("compare", "--alg") == ["--algos"]
    assert offered("methods", "") == ["list", "show"]
    assert offered("methods", "--js") == ["--json"]


def test_recipes_and_datasets_are_offered(offered: Offered, tmp_path: Path) -> None:
    assert offered("recipes", "show", "") == recipe_names()
    (first, *_) = offered("compare", "--recipe", "hopper/iql,pendulum/")
    assert first.startswith("hopper/iql,pendulum/")
    (tmp_path / "minari" / "me" / "task" / "name-v0" / "data").mkdir(parents=True)
    assert set(offered("pretrain", "--dataset", "")) == {"me/task/name-v0", *SUITE}
    assert offered("data", "show", "me") == ["me/task/name-v0"]
    assert "all" in offered("data", "suite", "build", "")


def test_keys_are_offered_as_far_as_they_are_told_apart(offered: Offered) -> None:
    every = offered("pretrain", "")
    assert {"iql.", "baq.", "shared.", "algo=", "guard.action="} <= set(every)
    one = offered("pretrain", "--algo", "iql", "")
    assert "iql." in one
    assert "baq." not in one
    assert {"iql.expectile=", "iql.hidden="} <= set(offered("pretrain", "iq"))
    assert offered("pretrain", "baq.td3_bc.a") == ["baq.td3_bc.alpha=", "baq.td3_bc.actor_q="]
    assert offered("pretrain", "iql.expec") == ["iql.expectile=", "iql.expectile=0.7"]
    assert offered("compare", "--grid", "shared.ta")[1].startswith("shared.tau=")
    assert offered("tune", "--search", "iql.expec") == ["iql.expectile=", "iql.expectile=0.7"]


def test_values_are_offered_behind_a_key(offered: Offered) -> None:
    """bash takes the words apart at `=`; other shells, and quotes, leave them whole."""
    switch = ["true", "false"]
    assert offered("pretrain", "iql.policy_cosine", "=") == switch
    assert offered("pretrain", "iql.policy_cosine", "=", "") == switch
    assert offered("pretrain", "iql.policy_cosine", "=", "f") == ["false"]
    assert offered("pretrain", "iql.policy_cosine=f") == ["iql.policy_cosine=false"]
    behind = offered("pretrain", "--algo", "iql", "iql.policy_cosine", "=", "false", "iql.expec")
    assert behind == ["iql.expectile=", "iql.expectile=0.7"]


def test_runs_their_checkpoints_and_comparisons_are_offered(
    offered: Offered, tmp_path: Path
) -> None:
    make_run(tmp_path / "runs" / "deep" / "a")
    make_run(tmp_path / "runs" / "b")
    make_run(tmp_path / ".hidden" / "c")
    (tmp_path / "runs" / "matrix.json").touch()
    assert offered("eval", "--checkpoint", "") == ["runs/b", "runs/deep/a"]
    saved = "runs/b/checkpoints/offline-10"
    assert offered("eval", "--checkpoint", "runs/b") == ["runs/b", saved]
    for typed in ("runs/b/", "runs/b/checkpoints/", "runs/b/checkpoints/off"):
        assert saved in offered("finetune", "--checkpoint", typed)
    assert offered("eval", "--checkpoint", "~/runs/d") == [
        "~/runs/deep/a",
        "~/runs/deep/a/checkpoints/offline-10",
    ]
    assert offered("compare", "status", "ru") == ["runs"]
    (tmp_path / "runs" / "b" / "search.json").touch()
    assert offered("tune", "status", "ru") == ["runs/b"]
    assert offered("report", "mine=runs/b") == ["mine=runs/b"]
    assert offered("eval", "--checkpoint", "nowhere/") == []


def test_the_names_that_are_looked_for_are_those_of_runs_and_comparisons() -> None:
    from baq_cli.runs.checkpoints import AGENT, CHECKPOINTS
    from baq_cli.runs.folder import MATRIX, RECIPE, SEARCH

    assert (typed_folders.RUN, typed_folders.COMPARISON, typed_folders.SEARCH) == (
        RECIPE,
        MATRIX,
        SEARCH,
    )
    assert (typed_folders.CHECKPOINTS, typed_folders.AGENT) == (CHECKPOINTS, AGENT)


def make_run(folder: Path) -> None:
    kept = folder / "checkpoints" / "offline-10"
    kept.mkdir(parents=True)
    (folder / "recipe.yaml").touch()
    (kept / "agent.safetensors").touch()


# -- never in the way

EVIL = ("$(touch pwned)", "a;touch pwned", "`touch pwned`", "a b", "a'b", 'a"b', "\x1b]0;x\x07")


def test_names_that_a_shell_would_read_otherwise_are_not_offered(
    offered: Offered, tmp_path: Path
) -> None:
    """zsh evaluates what it is offered: a folder's name must not be a command."""
    for name in EVIL:
        make_run(tmp_path / "runs" / name)
        (tmp_path / "minari" / name / "data").mkdir(parents=True)
    make_run(tmp_path / "runs" / "good")
    assert offered("eval", "--checkpoint", "runs/") == [
        "runs/good",
        "runs/good/checkpoints/offline-10",
    ]
    assert set(offered("data", "show", "")) == set(SUITE)


def test_what_fails_offers_nothing_and_says_nothing(
    offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", "")  # an error in every command
    assert offered("data", "show", "") == []

    def broken() -> list[str]:
        raise RuntimeError

    monkeypatch.setattr(method_files, "method_titles", broken)
    assert offered("pretrain", "--algo", "") == []
    assert offered("nonsense", "--algo", "i") == []


def shell(words: str, form: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Ask the installed command as a shell's script does."""
    asked = {"complete_bash": {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}}
    env = {completion.VARIABLE: form, "_TYPER_COMPLETE_ARGS": words, **asked.get(form, {}), **more}
    return subprocess.run(
        [BAQ], env=os.environ | env, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_installed_command_answers_bash_zsh_and_fish() -> None:
    assert shell("baq pretrain --algo i", "complete_bash").stdout.split() == ["iql"]
    zsh = shell("baq pretrain --algo i", "complete_zsh").stdout.strip()
    assert zsh == """_arguments '*: :(("iql":"IQL"))'"""
    assert shell("baq pretrain --recipe x", "complete_zsh").stdout.strip() == "_files"
    fish = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert shell("baq pretrain --algo i", "complete_fish", **fish).stdout.strip() == "iql\tIQL"


def test_an_answer_that_takes_too_long_ends_without_a_word() -> None:
    code = (
        "import time\n"
        "from baq_cli.cli import completion\n"
        "completion.MOST_SECONDS = 0.2\n"
        "completion.answer(lambda: time.sleep(60))\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    assert time.monotonic() - began < 20


def test_completion_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from baq_cli.cli import main\n"
        "for words in (['pretrain', '--algo', ''], ['pretrain', '--dataset', ''],\n"
        "              ['compare', '--recipe', ''], ['pretrain', 'baq.td3'],\n"
        "              ['eval', '--checkpoint', '']):\n"
        "    os.environ |= {'COMP_WORDS': ' '.join(['baq', *words]),\n"
        "                   'COMP_CWORD': str(len(words))}\n"
        "    try:\n        main.main()\n"
        "    except SystemExit as end:\n        assert not end.code\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    env = os.environ | {completion.VARIABLE: "complete_bash"}
    words = [sys.executable, "-c", code]
    here: dict[str, Any] = {"cwd": tmp_path, "env": env}  # not among all that a clone may hold
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, **here)
    assert done.stderr.strip() == "[]"
    assert {"iql", "baq/hopper/medium-v0", "hopper/iql"} <= set(done.stdout.split())


def test_bash_completes_once_it_is_installed(tmp_path: Path) -> None:
    """`--install-completion` from a bash, then what a new bash has behind `baq`."""
    env = os.environ | {"HOME": str(tmp_path), "PATH": f"{BAQ.parent}:{os.environ['PATH']}"}
    run: Any = {"env": env, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(["bash", "-c", "baq --install-completion; exit $?"], **run)
    assert done.returncode == 0, done.stderr
    script = (
        f"source '{tmp_path}/.bashrc'\n"
        "complete -p baq\n"
        "COMP_WORDS=(baq pretrain --algo td) COMP_CWORD=3\n"
        '_baq_completion baq && printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "--norc", "-c", script], **run)
    assert done.stdout.split("\n")[:2] == ["complete -o default -F _baq_completion baq", "td3_bc"]
