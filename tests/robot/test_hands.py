"""Somebody at hand: what they want is asked before every step, and done."""

from __future__ import annotations

import json
import os
import pickle
import pty
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from baq_cli.engine.checkpoints.folder import load, load_newest
from baq_cli.engine.phases.choosers import ByHand
from baq_cli.engine.phases.commands import run_finetune
from baq_cli.engine.phases.hands import gamepad as gamepads
from baq_cli.engine.phases.hands import keyboard as keyboards
from baq_cli.engine.phases.hands.hands import Hands
from baq_cli.engine.phases.hands.person import Person
from baq_cli.engine.phases.request import RunRequest
from baq_cli.envs.ref import EnvRef
from baq_cli.errors import DataError, Interrupted, UsageError
from baq_cli.hand import Decision, Moment, Setting
from baq_cli.recipes.intervention import InterventionConfig, KeysConfig
from baq_cli.recipes.load import parse_overrides
from baq_cli.runs.events import Acting, Event, ignore
from baq_cli.runs.files import SEAL, json_bytes
from baq_cli.runs.interrupt import Interruption
from support.acting_probes import PROBE, probe
from support.advice import Terminal, follows
from support.runs import assert_same_end, recipe_of, states, stopped_at

__all__ = ["probe"]
Array = np.ndarray[Any, Any]
NOWHERE = np.zeros(2, dtype=np.float32)


def moment(episode: int = 0) -> Moment:
    return Moment(NOWHERE, NOWHERE, episode, 0)


# -- a person

COMMANDS = ("take_over", "hand_back", "success", "failure", "end", "pause")


@given(st.lists(st.tuples(st.lists(st.sampled_from(COMMANDS), max_size=3), st.booleans())))
def test_what_is_asked_for_is_done_once_in_order_and_not_during_a_pause(
    steps: list[tuple[list[str], bool]],
) -> None:
    """Against a plain account: each step with what was typed before it, and if it is a new episode.

    A new episode can't begin during a pause.
    """
    person, episode = Person(), 0
    acts = paused = False
    mark, end = 0, False
    for typed, new in steps:
        if new and not paused:
            episode, acts = episode + 1, False
        person.arrive(moment(episode))
        person.hear(typed)
        for word in typed:
            acts = not acts if word == "take_over" else acts and word != "hand_back"
            paused ^= word == "pause"
            mark = {"success": 1, "failure": -1}.get(word, mark)
            end |= word == "end"
        found = person.decision(NOWHERE)
        if paused:
            assert found == Decision(pause=True)
        else:
            assert (found.action is not None, found.mark, found.end) == (acts, mark, end)
            mark, end = 0, False


def test_a_stop_is_heard_during_a_pause() -> None:
    person = Person()
    person.hear(["pause"])
    assert person.decision(NOWHERE).pause
    person.hear(["stop"])
    assert person.decision(NOWHERE) == Decision(stop=True)


# -- a keyboard


class Typed:
    """Keys that come when they are asked for."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.is_gone = False

    def read(self) -> list[str]:
        found, self.keys = self.keys, []
        return found


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Typed:
    terminal = Typed()
    monkeypatch.setattr(keyboards, "Terminal", lambda path, closing: terminal)
    return terminal


def test_a_key_acts_for_a_step_and_as_long_as_it_counts_as_held(typed: Typed) -> None:
    now = 0.0
    keys = KeysConfig(actions=(("a", "d"), ("s", "w")), strength=0.25, hold_seconds=1)
    setting = Setting(EnvRef("x"), 0, 2, 3)
    board = keyboards.Keyboard(keys, "", setting, clock=lambda: now)
    course = [  # when, what is typed, what is done
        (0.0, ["space", "d"], [0.25, 0, 0]),
        (0.9, ["s"], [0.25, -0.25, 0]),
        (1.0, ["x"], [0, -0.25, 0]),  # it was let go; what means nothing does nothing
        (1.2, ["w"], [0, 0.25, 0]),  # the later of two
        (9.0, [], [0, 0, 0]),
    ]
    for now, pressed, expected in course:  # noqa: B007
        typed.keys = pressed
        assert_array_equal(board.decide(moment()).action, np.float32(expected))
    typed.is_gone = True
    assert board.decide(moment()).stop, "nobody is there any more"


def test_a_key_that_counts_as_held_for_no_time_acts_for_one_step(typed: Typed) -> None:
    setting = Setting(EnvRef("x"), 0, 2, 1)
    board = keyboards.Keyboard(KeysConfig(hold_seconds=0), "", setting)
    typed.keys = ["space", "right", "p"]
    assert board.decide(moment()).pause
    typed.keys = ["p"]
    found = [board.decide(moment()).action for _ in range(2)]
    assert [float(action[0]) for action in found if action is not None] == [0.5, 0], "after a pause"


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard input is a terminal; the other end of it is returned."""
    ours, theirs = pty.openpty()
    with open(theirs) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield ours
    os.close(ours)


@follows(
    "a keyboard can't take over in the background, where a terminal gives no keys: start the ",
    "an action has {} dimensions, and there are keys for {}: name a pair for each that you want ",
    "'intervention.keys.actions' has {} pairs, and an action has {} dimensions: take the last away",
)
def test_a_terminal_in_the_background_and_keys_for_other_actions_are_refused(
    at_a_terminal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.tcgetpgrp", lambda handle: os.getpgrp() + 1)
        with pytest.raises(UsageError, match="start the command without '&'"):
            keyboards.keyboard(KeysConfig(), 1)
    assert keyboards.keyboard(KeysConfig(), 1)
    with pytest.raises(UsageError, match="17 dimensions, and there are keys for 8") as refusal:
        keyboards.keyboard(KeysConfig(), 17)
    (word,) = re.findall(r"'(intervention[^']*)'", str(refusal.value))
    keys = KeysConfig(**parse_overrides([word])["intervention"]["keys"])
    board = keyboards.keyboard(keys, 17)(Setting(EnvRef("x"), 0, 2, 17))
    os.write(at_a_terminal, b" dw")
    found = board.decide(moment()).action
    assert found is not None
    assert found.tolist() == [0.5, 0.5, *[0] * 15]
    board.close()
    with pytest.raises(UsageError, match="has 2 pairs, and an action has 1 dim"):
        keyboards.keyboard(keys, 1)
    fewer = keys.model_copy(update={"actions": keys.pairs[:-1]})
    assert keyboards.keyboard(fewer, 1)


def test_a_process_that_acts_elsewhere_opens_the_terminal_itself(
    at_a_terminal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What opens it is sent to that process, whose standard input is another."""
    sent = pickle.dumps(keyboards.keyboard(KeysConfig(), 1))
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        board = pickle.loads(sent)(Setting(EnvRef("x"), 0, 2, 1))
        os.write(at_a_terminal, b" \x1b[D")
        assert board.decide(moment()).action.tolist() == [-0.5]
        board.close()


def test_every_key_does_one_thing_and_has_a_name() -> None:
    with pytest.raises(ValueError, match="'h' is the key of two things"):
        KeysConfig(stop="h")
    with pytest.raises(ValueError, match="'a' is the key of two things"):
        KeysConfig(actions=(("a", "a"),))
    with pytest.raises(ValueError, match="one character, or one of space"):
        KeysConfig(stop="escape")
    assert ("a", "d") not in KeysConfig(stop="a").pairs, "defaults give way"


@pytest.mark.parametrize(
    ("by", "key", "value"),
    [
        ("keyboard", "steps", 3),
        ("gamepad", "step_probability", 0.5),
        ("me:Class", "hz", 5),
        ("policy:x", "success_reward", 1.0),
        ("gamepad", "keys", {"stop": "x"}),
    ],
)
def test_a_key_without_an_effect_is_refused(by: str, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"'{key}'"):
        InterventionConfig(by=by, **{key: value})


# -- a gamepad


class Pad:
    """SDL's controllers with one gamepad, whose buttons and sticks are set by their numbers."""

    def __init__(self) -> None:
        self.here, self.buttons, self.axes = True, set[int](), dict[int, int]()

    def get_count(self) -> int:
        return int(self.here)

    def is_controller(self, number: int) -> bool:
        return True

    def Controller(self, number: int) -> Pad:
        return self

    def attached(self) -> bool:
        return self.here

    def get_button(self, number: int) -> bool:
        return number in self.buttons

    def get_axis(self, number: int) -> int:
        return self.axes.get(number, 0)

    def init(self) -> None: ...

    def quit(self) -> None: ...


def test_a_gamepad_acts_while_its_shoulder_is_held_and_pauses_the_run_while_it_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shoulder, y, left_x, left_y = 10, 3, 0, 1
    pad = Pad()
    monkeypatch.setattr(import_module("pygame._sdl2"), "controller", pad, raising=False)
    monkeypatch.setattr("pygame.event.pump", lambda: None)
    hand = gamepads.gamepad(2)(Setting(EnvRef("x"), 0, 2, 2))
    assert hand.decide(moment()) == Decision()
    pad.buttons, pad.axes = {shoulder, y}, {left_x: 32_767, left_y: 16_384}
    found = hand.decide(moment())
    assert found.mark == 1
    assert found.action is not None
    np.testing.assert_allclose(found.action, [1, -0.5], atol=1e-3)
    assert hand.decide(moment()).mark == 0, "a button counts when it is pressed"
    pad.buttons, pad.axes = {shoulder}, {left_x: 2_000}
    assert_array_equal(hand.decide(moment()).action, np.float32([0, 0]))
    pad.here = False
    assert hand.decide(moment()).pause
    pad.here, pad.buttons = True, set()
    assert hand.decide(moment()) == Decision()


@follows(
    "no gamepad is connected that SDL knows: plug one in, or pair it, and give the command again",
    "an action has {} dimensions, and a gamepad's sticks have {}: take a keyboard, or a class of ",
)
def test_a_gamepad_that_is_not_there_or_has_too_few_sticks_is_said_first(
    at_a_terminal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pad = Pad()
    pad.here = False
    monkeypatch.setattr(import_module("pygame._sdl2"), "controller", pad, raising=False)
    with pytest.raises(UsageError, match="no gamepad is connected"):
        gamepads.gamepad(2)
    pad.here = True
    assert gamepads.gamepad(2)
    with pytest.raises(UsageError, match="5 dimensions, and a gamepad's sticks have 4"):
        gamepads.gamepad(5)
    assert keyboards.keyboard(KeysConfig(), 5)


@follows(
    "a gamepad is read through pygame-ce, which is not installed: pip install 'baq-cli[gamepad]'"
)
def test_without_its_library_a_gamepad_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pygame", None)
        with pytest.raises(UsageError, match=r"pip install 'baq-cli\[gamepad\]'"):
            gamepads.gamepad(2)
    with pytest.raises(UsageError, match="no gamepad is connected"):
        gamepads.gamepad(2)


# -- those at hand, in a run


class Says:
    """Decides what it was told to, step by step, and keeps what it was asked."""

    def __init__(self, decisions: list[Decision]):
        self.decisions, self.asked, self.closed = decisions, list[Moment](), False

    def decide(self, moment: Moment) -> Decision:
        self.asked.append(moment)
        return self.decisions.pop(0)

    def close(self) -> None:
        self.closed = True


def at_hand(*each: list[Decision], by: str = "keyboard", **rule: Any) -> tuple[Any, list[Says]]:
    """Return those who decide so, one a seed, in no run; and themselves."""
    them = [Says(decisions) for decisions in each]
    settings = tuple(Setting(EnvRef("x"), seed, 2, 1) for seed in range(len(each)))
    config = InterventionConfig(by=by, **rule)
    somebody: Any = SimpleNamespace(
        opens=lambda setting: them[setting.seed], config=config, settings=settings
    )
    return somebody, them


def test_what_each_wants_is_done_in_their_own_seed() -> None:
    act = Decision(np.float32([0.5]))
    somebody, them = at_hand(
        [Decision(), act, Decision(mark=1)], [act, Decision(end=True), Decision(mark=-1)],
        by="me:Class", success_reward=2.5,
    )  # fmt: skip
    shown: list[Event] = []
    hands = Hands(somebody, shown.append, Interruption())
    own, obs = np.float32([[0.1], [0.2]]), np.zeros((2, 2))
    episodes = [[0, 0], [0, 0], [0, 1]]
    expected = [[0.1, 0.5], [0.5, 0.2], [0.1, 0.2]]
    for episode, actions in zip(episodes, expected, strict=True):
        chosen = hands.choose(own, obs, np.array(episode))
        assert_array_equal(chosen[:, 0], np.float32(actions))
        assert_array_equal(hands.taken, np.float32(actions) == np.float32(0.5))
        steps = hands.judged(np.zeros(2), np.zeros(2, bool), np.array([False, False]))
        hands.done()
    assert [each.tolist() for each in steps] == [[2.5, 0], [True, True], [False, False]]
    asked = [[(m.episode, m.step) for m in each.asked] for each in them]
    assert asked == [[(0, 0), (0, 1), (0, 2)], [(0, 0), (0, 1), (1, 0)]]
    assert [e.text for e in shown if isinstance(e, Acting)][-1] == "the policy acts"
    hands.close()
    assert all(each.closed for each in them)


def test_a_limit_that_asks_for_somebody_is_heard_and_shown() -> None:
    somebody, them = at_hand([Decision(), Decision(), Decision(np.float32([1]))])
    shown: list[Event] = []
    hands = Hands(somebody, shown.append, Interruption())
    for why in (None, "observation 3 is far from the data", "observation 3 is far from the data"):
        hands.choose(np.zeros((1, 1), np.float32), np.zeros((1, 2)), np.array([0]), [why])
    far = "observation 3 is far from the data"
    assert [m.hand_over for m in them[0].asked] == ["", far, far]
    texts = ["the policy acts", f"somebody is asked to take over: {far}", "you act"]
    assert shown == [Acting(text, True) for text in texts]


def test_a_pause_waits_and_a_stop_or_a_signal_ends_it_without_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    pause = Decision(pause=True)
    interruption = Interruption()
    somebody, _ = at_hand([pause, pause, Decision(), Decision(stop=True)])
    hands = Hands(somebody, ignore, interruption)
    own, obs, first = np.zeros((1, 1), np.float32), np.zeros((1, 2)), np.array([0])
    assert hands.choose(own, obs, first) is not None
    assert len(waited) == 2
    assert hands.choose(own, obs, first) is None
    assert interruption.requested == "the keyboard"
    signalled = Interruption("SIGTERM")
    hands = Hands(at_hand([pause])[0], ignore, signalled)
    assert hands.choose(own, obs, first) is None
    assert signalled.requested == "SIGTERM"


WISHES = st.builds(
    Decision,
    st.none() | st.just(np.float32([0.5])),
    st.sampled_from([-1, 0, 1]),
    st.booleans(),
    st.booleans(),
)


@given(
    wishes=st.lists(
        st.tuples(WISHES, st.booleans(), st.sampled_from([None, "far", "late"])), max_size=6
    ),
    by=st.sampled_from(["gamepad", "me:Class"]),
)
def test_the_clock_asks_and_does_as_the_loop_does(
    wishes: list[tuple[Decision, bool, str | None]], by: str
) -> None:
    """Both are asked about the same steps, and do, mark, show and stop the same."""
    decisions = [*(decision for decision, *_ in wishes), Decision(), Decision(stop=True)]
    made = [(begins, why) for decision, begins, why in wishes if not decision.pause]
    new, reasons = iter([*(b for b, _ in made), False]), iter([*(w for _, w in made), "far", None])
    somebody, (in_loop,) = at_hand(list(decisions), by=by, success_reward=2.5)
    other, (on_clock,) = at_hand(list(decisions), by=by, success_reward=2.5)
    shown: list[Event] = []
    heard: list[Event] = []
    interruption = Interruption()
    hands, chooser = Hands(somebody, shown.append, interruption), ByHand(other, 0, heard.append)
    episode, own, obs = 0, np.float32([0.1]), np.zeros(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", lambda _: None)
        while True:
            why = next(reasons)
            chosen = hands.choose(own[None], obs[None], np.array([episode]), [why])
            choice = chooser.choose(own, obs, episode, why)
            while choice.pause:
                choice = chooser.choose(own, obs, episode, why)
            if chosen is None:
                break
            judged = hands.judged(np.zeros(1), np.zeros(1, bool), np.zeros(1, bool))
            reward, terminated, truncated = (float(each[0]) for each in judged)
            assert_array_equal(choice.action, chosen[0])
            assert (choice.label, choice.mark) == (hands.taken[0], hands.marks[0])
            assert (choice.reward, choice.mark != 0) == (reward, terminated)
            assert choice.end == truncated
            hands.done()
            chooser.done()
            episode += next(new)
    assert choice.stop == interruption.requested == ("the gamepad" if by == "gamepad" else by)
    assert [(m.episode, m.step) for m in in_loop.asked] == [
        (m.episode, m.step) for m in on_clock.asked
    ]
    assert shown == heard


# -- a class of the user's

CLASS = """
import numpy as np
from baq_cli.hand import Decision

class Expert:
    def __init__(self, setting):
        self.setting = setting

    def decide(self, moment):
        if moment.step == 3:
            return Decision(np.array([0.25]), mark=1)
        return Decision(np.array([0.25])) if moment.step % 2 else Decision()

    def close(self):
        raise OSError("the device is gone")

class Pausing(Expert):
    asked = 0

    def decide(self, moment):
        self.asked += 1
        return Decision(pause=self.asked % 5 > 0)

class Wrong(Expert):
    def decide(self, moment):
        return super().decide(moment) if moment.episode < 3 else WRONG
"""
EVERY, ENV_STEPS = 5, 30


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Write `my_hand.py`, on Python's path, with what `Wrong` decides in the end."""
    monkeypatch.syspath_prepend(str(tmp_path / "code"))

    def write(wrong: str) -> None:
        (tmp_path / "code").mkdir(exist_ok=True)
        (tmp_path / "code" / "my_hand.py").write_text(CLASS.replace("WRONG", wrong))

    write("None")
    yield write
    sys.modules.pop("my_hand", None)


def run_with(by: str, out: Path, named: str | None, resume: bool = False, **run: Any) -> None:
    watched = {"episodes": 1, "every_env_steps": EVERY, "background": False}
    layer = {"env": "Steady-v0", "env_steps": ENV_STEPS, "evaluation": watched, **run}
    layer["intervention"] = {"by": by, "success_reward": 100.0}
    recipe = recipe_of(PROBE, {"warmup_env_steps": 3, "spread": 0.1}, **layer)
    run_finetune(recipe, RunRequest(out, ignore, "baq", "baq --resume", resume, named), None)


def test_a_class_acts_in_each_seed_and_a_resume_goes_on_within_the_episode(
    probe: str, mine: Callable[[str], None], tmp_path: Path
) -> None:
    """It acts at odd steps and ends each episode at its fourth; an evaluation is every five."""
    run_with("my_hand:Expert", tmp_path / "whole", "my_hand:Expert")
    rows = torch.cat([b["rows"] for b in load(tmp_path / "whole").blocks if b is not None], dim=1)
    time, action, reward, bootstrap = (rows[..., k].numpy() for k in (2, 3, 7, 8))
    theirs = time % 2 == 1
    assert (action[theirs] == np.float32(0.25)).all()
    assert (action[~theirs] != np.float32(0.25)).all()
    assert ((reward > 50) == (time == 3)).all(), "the mark's own reward"
    assert not bootstrap[time == 3].any()
    assert time.max() == 3
    for name in list(states(tmp_path / "whole"))[:-1]:
        parts = stopped_at(tmp_path / "whole", name, tmp_path / name)
        run_with("my_hand:Expert", parts, "my_hand:Expert", resume=True)
        assert_same_end(tmp_path / "whole", parts)
        manifests = [
            json.loads((r / "manifest.json").read_text()) for r in (tmp_path / "whole", parts)
        ]
        assert manifests[0]["intervention"] == manifests[1]["intervention"]
    marks = (time == 3).sum(1).tolist()
    assert manifests[0]["intervention"]["successes"] == marks
    assert manifests[0]["intervention"]["taken_over"] == theirs.sum(1).tolist()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("None", "returned None, not a Decision"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("Decision(np.array([2.0]))", r"returned the action \[2.0\]; expected 1 numbers in"),
        ("Decision(np.array([np.nan]))", "returned the action"),
        ("Decision('left')", "returned no numbers"),
        ("Decision(mark=7)", "the mark 7"),
        ("Decision(mark=np.array([1]))", r"the mark \[1\]"),
        ("Decision(end=None)", "returned end = None, expected True or False"),
        ("Decision(pause='yes')", "returned pause = 'yes', expected"),
        ("exec('raise SystemExit(3)')", "SystemExit: 3"),
    ],
)
def test_a_class_that_fails_ends_the_run_and_costs_nothing(
    wrong: str, said: str, probe: str, mine: Callable[[str], None], tmp_path: Path
) -> None:
    mine(wrong)
    with pytest.raises(Interrupted, match=rf"(?s)my_hand:Wrong.*{said}.*everything is saved"):
        run_with("my_hand:Wrong", tmp_path / "run", "my_hand:Wrong")
    assert max(states(tmp_path / "run").popitem()[1]["episodes"]) == 3


def test_a_pause_and_the_pace_of_a_person_make_no_action_late(
    probe: str,
    mine: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Time goes on only while somebody has the run wait: four times 0.05 s a step."""
    now = [1.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda seconds: now.append(now.pop() + seconds))
    watchdog = {"max_late_seconds": 0.01, "then": "stop"}
    safety = {"watchdog": watchdog, "rest_action": 0}
    run_with("my_hand:Pausing", tmp_path / "run", "my_hand:Pausing", safety=safety)
    assert now[0] >= 1 + 0.2 * ENV_STEPS
    hands = Hands(at_hand([Decision(np.float32([1]))] * 3, hz=4)[0], ignore, Interruption())
    waited = []
    for _ in range(3):
        hands.choose(np.zeros((1, 1), np.float32), np.zeros((1, 2)), np.array([0]))
        waited.append(hands.waited_seconds)
    assert waited == [0, 0.25, 0.25], "a person's steps are so far apart"


@follows("the recipe has '{}' take over, and a class is imported only where the command itself ")
def test_a_recipe_alone_has_no_class_imported(
    terminal: Terminal, mine: Callable[[str], None], short_env: str, tmp_path: Path
) -> None:
    small = ("threads=1", "evaluation.episodes=1", "evaluation.background=false")
    words = ("finetune", "--algo", "sac", "--env", short_env, "--env-steps", "6", *small)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("intervention: {by: 'my_hand:Expert'}\n")
    out = ("--recipe", str(recipe), "--out", str(tmp_path / "run"), "shared.hidden=[8,8]")
    said = terminal.told(*words, *out)
    assert "my_hand" not in sys.modules
    assert "--intervene my_hand:Expert" in said
    terminal.done(*words, *out, "--intervene", "my_hand:Expert")
    assert "my_hand" in sys.modules
    again = (*words, "--out", str(tmp_path / "run"), "shared.hidden=[8,8]")
    terminal.told(*again, "--recipe", str(tmp_path / "run" / "recipe.yaml"), "--resume")
    terminal.done(*again, "--intervene", "my_hand:Expert", "--resume")


@follows(
    "there is no module '{}' on Python's path: install it, or name its folder, as in ",
    "{} has no method 'decide(moment)': see docs/robots.md",
)
def test_a_class_that_is_nowhere_is_refused_before_anything_begins(
    probe: str, mine: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no attribute 'Nobody'"):
        run_with("my_hand:Nobody", tmp_path / "run", "my_hand:Nobody")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far_hand.py").write_text(CLASS)
    with pytest.raises(UsageError, match="no module 'far_hand'"):
        run_with("far_hand:Expert", tmp_path / "run", "far_hand:Expert")
    (tmp_path / "elsewhere" / "idle_hand.py").write_text("class Idle:\n    pass\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path / "elsewhere"))
        with pytest.raises(UsageError, match="no method 'decide"):
            run_with("idle_hand:Idle", tmp_path / "run", "idle_hand:Idle")
    assert not (tmp_path / "run").exists()
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    run_with("far_hand:Expert", tmp_path / "run", "far_hand:Expert")


@follows("somebody at a {} watches one robot, and there are {} seeds: run one (--seeds 1)")
@pytest.mark.parametrize("by", ["keyboard", "gamepad"])
def test_a_person_has_one_robot(
    by: str, terminal: Terminal, short_env: str, tmp_path: Path
) -> None:
    words = ("finetune", "--algo", "sac", "--env", short_env, "--out", str(tmp_path / "run"))
    said = terminal.told(*words, "--intervene", by, "--seeds", "2")
    assert "there are 2 seeds: run one (--seeds 1)" in said
    assert "seeds" not in terminal.told(*words, "--intervene", by, "--seeds", "1")


# -- what a checkpoint keeps


@pytest.mark.parametrize(
    "change",
    [
        {"marks": [[0], [0]]},
        {"marks": [[0, 0], [0, -1]]},
        {"taken_over_course": [[5, [1]]]},
        {"taken_over_course": [[5, 1]]},
    ],
)
def test_counts_of_other_seeds_are_refused(
    change: dict[str, Any], probe: str, mine: Callable[[str], None], tmp_path: Path
) -> None:
    run_with("my_hand:Expert", tmp_path / "run", "my_hand:Expert", env_steps=EVERY)
    for name, state in states(tmp_path / "run").items():
        path = tmp_path / "run" / "checkpoints" / name / "state.json"
        del state[SEAL]
        path.write_bytes(json_bytes(state | change))
    with pytest.raises(DataError, match=r"marks|taken_over_course"):
        load_newest(tmp_path / "run", lambda _: None)
