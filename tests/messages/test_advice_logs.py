"""What imports and exports of logs advise is done here to the letter, and helps."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from baq_cli.data.exchange import save_arrays
from baq_cli.errors import DataError, UsageError
from support.advice import Terminal, follows
from support.logs import BOUNDS, NEW, Columns, write_table, written

ENDED: Columns = {"terminated": [0, 1, 0, 1], "truncated": [0] * 4}
WIDE: Columns = {f"observations/{k}": [0.0, 1, 2, 3] for k in "abc"}
PLAIN = "observation: x\naction: u\nreward: r\nterminated: t\ntruncated: e\n"
NUMBERS = itertools.count()
"""Of new datasets."""
TEXT = "x,u,r,t,e\n1,.5,1,0,0\n2,.5,2,1,0\n"


def rows(count: int = 4, /, **more: Any) -> Columns:
    """Return so many rows of a log by its usual names, with other columns beside them."""
    base = {"obs": [0.5 + k for k in range(count)], "action": [0.25] * count}
    return {**base, "reward": [1.0] * count, **more}


def npz(path: Path, **more: Any) -> Path:
    np.savez(path, **{name: np.asarray(v) for name, v in rows(8, **more).items()})
    return path


def flags(*marked: int, of: int = 8) -> list[int]:
    return [int(k in marked) for k in range(of)]


def options(said: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][a-z-]*", said)


class Import:
    """Imports a log again and again, each time under another id."""

    def __init__(self, terminal: Terminal, *files: Path, bounds: tuple[str, ...] = BOUNDS):
        self.terminal, self.files, self.bounds = terminal, files, bounds

    def words(self, *more: str | Path) -> list[str | Path]:
        given = ["data", "import", *self.files, "--id", f"me/n{next(NUMBERS)}-v0"]
        return [*given, *self.bounds, *more]

    def done(self, *more: str | Path) -> str:
        return self.terminal.done(*self.words(*more))

    def told(self, *more: str | Path, status: int = 2) -> str:
        return self.terminal.told(*self.words(*more), status=status)

    def followed(self, said: str, *before: str | Path) -> list[str]:
        """Import once by each `--ends` that a message names; return these."""
        ways: list[str] = re.findall(r"--ends ([a-z_]+=\w+)", said)
        for way in ways:
            self.done(*before, "--ends", way)
        return ways


# -- actions


@follows(
    "the log doesn't say what its actions' bounds are: name the environment it was made in",
    "actions have two bounds: give --action-low and --action-high",
    "{} has action bounds of its own: leave --action-low and --action-high (in a mapping ",
)
def test_actions_have_bounds_or_an_environment(
    terminal: Terminal, folder: Path, short_env: str
) -> None:
    columns = {**rows(**ENDED, **{f"obs/{k}": [0.0, 1, 2, 3] for k in "xyz"})}
    del columns["obs"]
    log = Import(terminal, write_table("csv", folder, columns), bounds=())
    mapping = written(folder / "m.yaml", "")
    flat = "observation: obs/*\naction: action\nreward: reward\nterminated: terminated\n"
    flat += "truncated: truncated\n"
    written(mapping, flat)
    env, low, high = options(log.told("--mapping", mapping, status=3))
    log.done("--mapping", mapping, env, short_env)
    log.done("--mapping", mapping, f"{low}=-1", f"{high}=1")
    assert options(log.told("--mapping", mapping, f"{low}=-1")) == [low, high]
    both = log.told("--mapping", mapping, env, short_env, f"{low}=-1", f"{high}=1")
    assert options(both) == [low, high]
    written(mapping, f"{flat}env: {short_env}\naction_low: -1\naction_high: 1\n")
    for key in re.findall(r"action_\w+", log.told("--mapping", mapping)):
        text = mapping.read_text()
        written(mapping, "".join(ln for ln in text.splitlines(True) if not ln.startswith(key)))
    log.done("--mapping", mapping)


@pytest.mark.usefixtures("folder")
@follows("{} has action bounds of its own: leave action_low and _high out")
def test_arrays_have_bounds_or_an_environment(short_env: str) -> None:
    arrays = {"observations": np.zeros((2, 3)), "actions": np.zeros((2, 1)), "rewards": np.ones(2)}
    arrays |= {"terminated": np.array([0, 1]), "truncated": np.zeros(2)}
    bounds = {"action_low": -1.0, "action_high": 1.0}
    with pytest.raises(UsageError, match="leave action_low and _high out"):
        save_arrays(NEW, **arrays, env=short_env, **bounds)
    save_arrays(NEW, **arrays, env=short_env)
    with pytest.raises(DataError, match="or give --action-low and --action-high"):
        save_arrays("me/other-v0", **arrays, action_low=-1)
    save_arrays("me/other-v0", **arrays, **bounds)


# -- names of columns


@follows(
    "no column is called {}; found {}. Say which columns mean what with --mapping FILE.yaml.{}",
    "nothing says what the reward is: name its column in the mapping; {}",
    "a log without rewards takes --reward constant:0, or another number",
)
def test_a_mapping_says_what_columns_mean(terminal: Terminal, folder: Path) -> None:
    log = Import(terminal, written(folder / "log.csv", TEXT))
    (flag,) = options(log.told(status=3))
    log.done(flag, written(folder / "FILE.yaml", PLAIN))
    for reward in ("", "reward: gone\n"):
        text = PLAIN.replace("reward: r\n", reward)
        said = log.told(flag, written(folder / "FILE.yaml", text))
        (option,) = re.findall(r"--reward constant:\d", said)
        log.done(flag, folder / "FILE.yaml", *option.split())
        log.done(flag, folder / "FILE.yaml", "--reward", "constant:-0.5")
    unrewarded = Import(terminal, write_table("csv", folder, {"obs": [1, 2], "action": [0, 0]}))
    said = unrewarded.told(status=3)
    assert "--reward constant:0" in said
    write_table("csv", folder, {"obs": [1, 2], "action": [0, 0], "terminated": [0, 1]})
    unrewarded.done("--reward", "constant:0", "--only-terminations")


@follows("a mapping has {} patterns a field at most: join them")
def test_many_patterns_are_joined(terminal: Terminal, folder: Path) -> None:
    columns = rows(**{f"q{k}_m": [1.0] * 4 for k in range(101)}, **ENDED)
    log = Import(terminal, write_table("csv", folder, columns))
    usual = "\naction: action\nreward: reward\nterminated: terminated\ntruncated: truncated\n"
    many = ", ".join(f"'q{k}_?'" for k in range(101))
    path = written(folder / "m.yaml", f"observation: [{many}]{usual}")
    log.told("--mapping", path)
    log.done("--mapping", written(path, f"observation: ['q*_?']{usual}"))


@follows("column '{}' has tensors whose axes are turned: store them as is")
def test_tensors_are_stored_as_they_are(terminal: Terminal, folder: Path) -> None:
    log = Import(terminal, folder / "log.parquet")

    def write(permutation: list[int]) -> None:
        kind = pyarrow.fixed_shape_tensor(pyarrow.float64(), [2, 3], permutation=permutation)
        cells = pyarrow.array([[1.0] * 6] * 4, pyarrow.list_(pyarrow.float64(), 6))
        tensors = pyarrow.ExtensionArray.from_storage(kind, cells)
        columns = {**rows(**ENDED), "obs": tensors}
        parquet.write_table(pyarrow.table(columns), folder / "log.parquet")

    write([1, 0])
    log.told(status=3)
    write([0, 1])
    log.done()


# -- tables written as text


@follows("the header has '{}' twice, and it is asked for: give one of the columns another name")
def test_a_name_that_comes_twice_is_changed(terminal: Terminal, folder: Path) -> None:
    text = "obs,obs,action,reward,terminated,truncated\n1,1,0,1,0,0\n2,2,0,1,1,0\n"
    path = written(folder / "log.csv", text)
    log = Import(terminal, path)
    (name,) = re.findall(r"has '(\w+)' twice", log.told(status=3))
    written(path, text.replace(f"{name},{name}", f"{name},another"))
    log.done()


@follows(
    "line {} holds no units: leave --units-row (units_row) out",
    ". If line {} holds units, --units-row (in a mapping units_row: true) ",
)
def test_a_row_of_units_is_told(terminal: Terminal, folder: Path) -> None:
    path = written(folder / "log.csv", TEXT)
    log = Import(terminal, path)
    plain = written(folder / "plain.yaml", PLAIN)
    log.told("--mapping", plain, "--units-row", status=3)
    log.done("--mapping", plain)
    written(path, TEXT.replace("e\n", "e\nm,N,,,\n", 1))
    said = log.told("--mapping", plain, status=3)
    log.done("--mapping", plain, *options(said))
    (key,) = re.findall(r"in a mapping ([^)]*)\)", said)
    log.done("--mapping", written(folder / "units.yaml", f"{PLAIN}{key}\n"))


@follows("line {} holds numbers, so there is no header of names. Write a line with the columns'")
def test_names_are_written_above_or_in_the_mapping(terminal: Terminal, folder: Path) -> None:
    header, _, body = TEXT.partition("\n")
    path = written(folder / "log.csv", body)
    log = Import(terminal, path)
    plain = written(folder / "plain.yaml", PLAIN)
    said = log.told("--mapping", plain, status=3)
    assert said.endswith(f"here {len(header.split(','))}")
    (key,) = re.findall(r"(columns: \[.*\]);", said)
    named = key.replace("x, y, …", header)
    log.done("--mapping", written(folder / "named.yaml", f"{PLAIN}{named}\n"))
    written(path, TEXT)
    log.done("--mapping", plain)


@pytest.mark.parametrize("between", [",;", "\t|"])
@follows("cells may be divided by {}: say which with --delimiter, as --delimiter {} (in a mapping")
def test_what_divides_cells_is_said(between: str, terminal: Terminal, folder: Path) -> None:
    """By either the header has the names asked for; a tab is named, for it can't be copied."""
    one, other = between
    lines = [f"x{one}y{other}e{one}e", *[f"0{one}5{other}0{one}0"] * 4]
    log = Import(terminal, written(folder / "log.csv", "\n".join(lines)))
    asked = "observation: 'x*'\naction: 'x*'\nreward: 'x*'\nterminated: 'e*'\n"
    plain = ("--max-episode-steps", "2", "--mapping", written(folder / "plain.yaml", asked))
    said = log.told(*plain)
    (option, key) = re.findall(r"as (--delimiter \S+) \(in a mapping ([^)]*)\)", said)[0]
    log.done(*plain, *shlex.split(option))
    log.done(*plain[:-1], written(folder / "m.yaml", f"{asked}{key}\n"))
    if between == ",;":
        log.done(*plain, "--delimiter", ";")


@follows(
    "'{}' in line {} has a comma and '{}' in line {} a point: write all numbers with one decimal",
    "'{}' in line {} may be a decimal comma, or divide thousands: --decimal ',' (in a mapping",
    "'{}' in line {} divides thousands by commas: write numbers without a mark for thousands",
)
def test_numbers_have_one_mark_and_none_for_thousands(terminal: Terminal, folder: Path) -> None:
    path = folder / "log.csv"
    log = Import(terminal, path)
    plain = ("--mapping", written(folder / "plain.yaml", PLAIN))

    def write(*cells: str) -> None:
        written(path, "x;u;r;t;e\n" + "".join(f"{cell};0;1;0;0\n" for cell in (*cells, "1")))

    write("0,5", "0.5")
    log.told(*plain, status=3)
    for mark in ",.":
        write(f"0{mark}5", f"0{mark}5")
        log.done(*plain)
    write("1,234")
    said = log.told(*plain)
    (option, key) = re.findall(r": (--decimal \S+) \(in a mapping ([^)]*)\)", said)[0]
    log.done(*plain, *shlex.split(option))
    log.done("--mapping", written(folder / "m.yaml", f"{PLAIN}{key}\n"))
    write("1234")
    log.done(*plain)
    for cells in (["1,234", "1,234,567"], ["0,5", "1,234,567"]):
        write(*cells)
        said = log.told(*plain, status=3)
        assert "'1,234,567'" in said
        assert "--decimal" not in said
        write(*(cell if cell == "0,5" else cell.replace(",", "") for cell in cells))
        log.done(*plain)


@follows("can't be read as a .csv file: it holds NUL bytes. It may be UTF-16 without a byte order")
def test_text_is_saved_in_the_encoding_that_is_named(terminal: Terminal, folder: Path) -> None:
    path = folder / "log.csv"
    path.write_bytes(TEXT.encode("utf-16-le"))
    log = Import(terminal, path)
    plain = ("--mapping", written(folder / "plain.yaml", PLAIN))
    (encoding,) = re.findall(r"with the encoding (\S+)", log.told(*plain, status=3))
    path.write_bytes(TEXT.encode(encoding))
    log.done(*plain)


@follows(
    "{}: files of type '{}' can't be imported; known: {}. Give a table that is written as text the",
    "{} is no table written as text: leave '{}' out",
)
def test_files_have_the_suffix_of_their_format(terminal: Terminal, folder: Path) -> None:
    path = written(folder / "log.txt", TEXT)
    plain = ("--mapping", written(folder / "plain.yaml", PLAIN))
    said = Import(terminal, path).told(*plain)
    (suffix,) = re.findall(r"the suffix (\.\w+)", said)
    Import(terminal, path.rename(path.with_suffix(suffix))).done(*plain)
    table = Import(terminal, write_table("npz", folder, rows(**ENDED)))
    (key,) = re.findall(r"leave '(\w+)' out", table.told("--decimal", ","))
    said = table.told("--mapping", written(folder / "m.yaml", f"{key}: ','\nlast_row: step\n"))
    table.done("--mapping", written(folder / "m.yaml", "last_row: step\n"))
    table.done()


# -- several files


@follows(
    "{} holds {} files: name those that make one log, as {}/*{}",
    ". There are folders in it: name those, {}",
    "{} comes twice: name each file once",
)
def test_files_are_named(terminal: Terminal, folder: Path) -> None:
    inner = folder / "logs" / "day"
    inner.mkdir(parents=True)
    path = write_table("csv", inner, rows(**ENDED))
    said = Import(terminal, folder / "logs").told(status=3)
    (named,) = re.findall(r"name those, (\S+)", said)
    Import(terminal, Path(named)).done()
    write_table("npz", inner, rows(**ENDED))
    said = Import(terminal, inner).told()
    pattern = Path(said.rpartition(", as ")[2])
    Import(terminal, *pattern.parent.glob(pattern.name)).done()
    (twice,) = re.findall(r"(\S+) comes twice", Import(terminal, path, path).told())
    Import(terminal, Path(twice)).done()


@follows("{} ends in episode {} and {} begins in one of that number: say with --join-files that")
def test_an_episode_goes_on_or_is_another_as_is_said(terminal: Terminal, folder: Path) -> None:
    files = []
    for name in "ab":
        (folder / name).mkdir()
        files.append(write_table("csv", folder / name, rows(episode=[3] * 4)))
    log = Import(terminal, *files)
    join, split = options(log.told())
    assert "1 episode, 7 steps" in log.done(join)
    assert "2 episodes, 6 steps" in log.done(split)


@follows(
    "{} isn't read as {} is: {}, there {}. Say it for all of them with --ends ROLE=COLUMN, or",
    "Files of one log have the same columns; import others by themselves",
)
def test_files_are_read_alike_or_by_themselves(
    terminal: Terminal, folder: Path, short_env: str
) -> None:
    """In the second file nothing is marked, and the environment's limit would cut it."""
    files = []
    for name, marked in (("a", flags(2, 7)), ("b", flags())):
        wide = {"obs": np.zeros((8, 3)), "terminals": flags(), "dones": marked}
        files.append(npz(folder / f"{name}.npz", **wide))
    env = ("--env", short_env)
    both = Import(terminal, *files, bounds=env)
    said = both.told(status=3)
    ((role, column),) = re.findall(r"(\w+) from '(\w+)'(?=\.)", said)
    both.done("--ends", f"{role}={column}")
    for file in files:
        Import(terminal, file, bounds=env).done()
    wide = {"obs": np.zeros((8, 3)), "terminals": flags(), "timeouts": flags(7)}
    other = npz(folder / "c.npz", **wide)
    log = Import(terminal, files[0], other, bounds=env)
    assert "import others by themselves" in log.told(status=3)
    Import(terminal, other, bounds=env).done()


@follows("its arrays claim {} bytes, and {} are free here: import it in parts, or where there is")
def test_a_log_beyond_memory_is_imported_in_parts_or_where_there_is_more(
    terminal: Terminal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows(200, terminated=flags(99, 199, of=200), truncated=[0] * 200)
    path = write_table("npz", folder, whole)
    log = Import(terminal, path)
    with monkeypatch.context() as patch:
        patch.setattr("baq_cli.data.sizes.LARGE", 1_000)
        patch.setattr("baq_cli.data.sizes.free_memory", lambda: 6_000)
        log.told(status=3)
        for part in (slice(100), slice(100, 200)):
            write_table("npz", folder, {name: column[part] for name, column in whole.items()})
            log.done()
    write_table("npz", folder, whole)
    log.done()


# -- where episodes end


@follows(
    "the log has neither truncations (timeouts) nor episode numbers, so only terminations would",
    "the log says itself where episodes end ({}): leave --max-episode-steps and --only-terminat",
)
def test_a_limit_is_given_where_nothing_else_ends_an_episode(
    terminal: Terminal, folder: Path
) -> None:
    path = npz(folder / "log.npz", terminals=flags(5))
    log = Import(terminal, path)
    limit, alone = options(log.told(status=3))
    log.done(limit, "3")
    log.done(alone)
    npz(path, terminals=flags(5), timeouts=flags(7))
    for given in ((limit, "3"), (alone,)):
        said = log.told(*given)
        assert options(said)[:2] == [limit, alone]
        assert log.followed(said, *given) == ["unused=timeouts"]
    log.done()
    npz(path, terminals=flags(5), over=flags(7))
    said = log.told(limit, "3", "--ends", "last=over")
    (new, old) = re.findall(r"--ends (\S+) in the place of --ends (\S+)", said)[0]
    assert old == "last=over"
    log.done(limit, "3", "--ends", new)
    npz(path, timeouts=flags(3, 7))
    said = log.told(limit, "3")
    assert "unused" not in said  # nothing would be left
    log.done()


@follows(" Is it the limit: --max-episode-steps {}{}?", " in the place of --only-terminations")
@pytest.mark.parametrize(
    ("ended", "before"),
    [
        ({"timeouts": flags(7)}, ()),
        ({"over": flags(7)}, ("--ends", "last=over")),
        ({}, ("--only-terminations",)),
        ({}, ("--max-episode-steps", "3")),
    ],
)
def test_the_limit_that_a_file_tells_of_is_given(
    ended: Columns, before: tuple[str, ...], terminal: Terminal, folder: Path
) -> None:
    path = npz(folder / "log.npz", terminals=flags(), max_episode_steps=4, **ended)
    log = Import(terminal, path)
    said = log.told(*before, status=3)
    assert "unused=max_episode_steps" in said
    log.done(*before, "--ends", "unused=max_episode_steps")
    (limit, instead) = re.findall(r"the limit: (--max-episode-steps \d)(.*?)\?", said)[0]
    ways = re.findall(r"--ends unused=\w+", instead.partition(" in the place of")[0])
    words = [word for option in (limit, *ways) for word in option.split()]
    assert "2 episodes" in log.done(*words)


@follows(
    "Where the log has none, --only-terminations takes each file for one episode, and "
    "--max-episode-steps N cuts it after every N steps; all of these ends are truncations"
)
@pytest.mark.parametrize("name", ["mapping", "custom"])
def test_a_log_that_says_nothing_of_ends_is_an_episode_a_file_or_cut_at_a_limit(
    name: str, terminal: Terminal, folder: Path
) -> None:
    """As where a robot's program writes a file a demonstration, and no column of ends."""
    columns = rows(obs=[0.0, 1, 2, 3], action=[0] * 4, reward=[1] * 4)
    (folder / "b").mkdir()
    files = [write_table("csv", place, columns) for place in (folder, folder / "b")]
    text = "observation: obs\naction: action\nreward: reward\n" if name == "mapping" else ""
    mapping = ("--mapping", written(folder / "m.yaml", text)) if text else ()
    log = Import(terminal, files[0])
    said = log.told(files[1], *mapping, status=3)
    only, limit = options(said)
    known = "every end counts as truncated"
    for words, count in (((only,), "2 episodes, 6 steps"), ((limit, "2"), "4 episodes, 4 steps")):
        found = log.done(files[1], *mapping, *words)
        assert count in found
        assert known in found
    write_table("csv", folder, {**columns, "over": [0, 1, 0, 0]})
    log.done(*mapping, only)  # a column that means nothing is no end
    write_table("csv", folder, {**columns, "done": [0, 1, 0, 0]})
    asked = log.told(*mapping, only, status=3)
    assert only not in asked.partition("'done'")[0], "it was given"
    assert "2 episodes" in log.done(*mapping, "--ends", "truncated=done")
    log.done(*mapping, only, "--ends", "unused=done")


@follows(
    "the mark stays to the episode's last step. Mark the first of these steps alone, and remove "
    "the rows behind it."
)
def test_a_mark_that_stays_is_left_at_its_first_step(terminal: Terminal, folder: Path) -> None:
    """Without episode numbers each of its rows would be an episode of one step."""
    path, episode = folder / "log.npz", [0] * 4 + [1] * 4
    said = Import(terminal, npz(path, episode=episode, terminated=flags(2, 3, 7))).told(status=3)
    assert "inside an episode: 1 step;" in said
    assert "--ends" not in said
    kept = {name: np.delete(column, 3) for name, column in np.load(path).items()}
    np.savez(path, **kept)
    assert "2 episodes, 7 steps" in Import(terminal, path).done()


@follows(
    "marks every row of {}: it says how they ended, not where. Leave the mark in the last "
    "row of each alone if the task ended there, or say {}",
    "marks rows up to the last one of {}: the task ended at the first of them. Leave the "
    "mark there alone, without the rows behind it, or say {}",
    "every step of {} is. Such a mark says how an episode ended, not where: leave it at "
    "the last step of each alone.",
)
@pytest.mark.parametrize("by", ["episode", "truncated"])
def test_a_mark_of_whole_episodes_is_left_at_their_last_steps(
    terminal: Terminal, folder: Path, by: str
) -> None:
    """Without episode numbers each marked row would be an episode of one step."""
    ends = {"episode": [0] * 4 + [1] * 4, "truncated": flags(3, 7)}[by]
    path, say = folder / "log.npz", ("--ends", "terminated=success")
    log = Import(terminal, npz(path, **{by: ends}, success=flags(0, 1, 2, 3)))
    said = log.told(*say, status=3)
    assert "'success' marks every row of 1 episode:" in said
    assert "2 episodes" in log.done("--ends", "unused=success")
    assert "--ends unused=success in the place of --ends terminated=success" in said
    npz(path, **{by: ends}, success=flags(3))
    assert "2 episodes, 7 steps" in log.done(*say)
    kept = npz(path, **{by: ends}, success=flags(2, 3))
    stays = log.told(*say, status=3)
    assert ("rows up to the last one of 1 episode:" in stays) == (by == "truncated")
    columns = {name: np.delete(column, 3) for name, column in np.load(kept).items()}
    columns[by][2] |= by == "truncated"
    np.savez(path, **columns)
    assert "2 episodes, 6 steps" in log.done(*say)
    npz(path, episode=[0] * 4 + [1] * 4, terminated=flags(0, 1, 2, 3))
    assert "every step of 1 episode is" in log.told(status=3)


def test_episodes_of_one_step_that_all_terminate_are_no_mark_that_stays(
    terminal: Terminal, folder: Path
) -> None:
    """One decision an episode, as of a bandit; and two ends side by side."""
    every = [1] * 8
    log = Import(terminal, npz(folder / "log.npz", success=every, truncated=every))
    assert "8 episodes, 8 steps" in log.done("--ends", "terminated=success")
    npz(folder / "log.npz", success=flags(2, 3, 5), truncated=flags(7))
    assert "4 episodes, 7 steps" in log.done("--ends", "terminated=success")


@follows("Say what ends an episode with --ends ROLE=COLUMN, or {}.", "named by --ends")
def test_a_count_of_episodes_is_reached_by_another_column_or_set_aside(
    terminal: Terminal, folder: Path
) -> None:
    more = {"fell": flags(3, 7), "x": flags(), "timeouts": flags()}
    path = npz(folder / "log.npz", terminals=flags(2, 6, 7), total_episodes=2, **more)
    log = Import(terminal, path)
    said = log.told(status=3)
    assert log.followed(said) == ["unused=total_episodes"]
    assert "2 episodes" in log.done("--ends", "terminated=fell")
    assert "'x' (named by --ends)" in log.done("--ends", "terminated=fell", "--ends", "unused=x")
    npz(path, timeouts=flags(3, 7), max_episode_steps=2)
    said = log.told(status=3)
    assert "the limit" not in said  # without its ends nothing would say that a task ended
    assert log.followed(said) == ["unused=max_episode_steps"]


@follows(
    "the task ended there; --only-terminations where nothing else ends an episode",
    "the task ended where it is 0; --only-terminations where nothing else does",
)
def test_a_mark_means_a_termination_and_nothing_else_ends_an_episode(
    terminal: Terminal, folder: Path
) -> None:
    for k, column in enumerate(({"done": flags(2, 7)}, {"masks": [1 - v for v in flags(2, 7)]})):
        path = npz(folder / f"{k}.npz", **column)
        log = Import(terminal, path)
        said = log.told(status=3)
        way, option = re.findall(r"--ends (\w*terminated=\w+) \([^)]*(--[a-z-]+)", said)[0]
        assert "2 episodes, 8 steps" in log.done("--ends", way, option)


@follows(
    "column '{}' can't be --ends {}: expected 0 or 1 in each of {} rows, or rising row numbers",
    "column '{}' can't be --ends step: expected a number in each row",
    "--ends {} and {} say the same: give one of them",
)
def test_a_column_holds_what_its_role_has(terminal: Terminal, folder: Path) -> None:
    path = folder / "log.npz"
    log = Import(terminal, path)
    odd = [0, 2, 0, 2, 0, 0, 0, 0]
    for role, lists in (("last", [4, 8]), ("first", [0, 4])):
        npz(path, terminals=flags(), over=odd)
        log.told("--ends", f"{role}=over", status=3)
        for mended in (flags(0, 4) if role == "first" else flags(3, 7), lists):
            npz(path, terminals=flags(), over=mended)
            assert "2 episodes" in log.done("--ends", f"{role}=over")
    counter = [0.0, 1, np.nan, 3, 0, 1, 2, 3]
    npz(path, terminals=flags(), count=counter)
    log.told("--ends", "step=count", status=3)
    npz(path, terminals=flags(), count=np.nan_to_num(counter, nan=2))
    assert "2 episodes" in log.done("--ends", "step=count")
    npz(path, terminals=flags(), a=[0] * 4 + [1] * 4)
    for roles in (("episode", "runs"), ("terminated", "not_terminated")):
        said = log.told(*(w for role in roles for w in ("--ends", f"{role}=a")))
        assert re.findall(r"--ends (\w+) and (\w+)", said) == [roles]
    for role in ("episode", "runs"):
        log.done("--ends", f"{role}=a")
    for role in ("terminated", "not_terminated"):
        log.done("--ends", f"{role}=a", "--only-terminations")


@follows(
    "{}. If each run is an episode of its own, as where a second log begins at 0 again: {}. If one",
    "{}, as where several robots write in turn. Sort the rows by {} and then by step. If each of",
)
@pytest.mark.parametrize("numbers", [[0, 0, 1, 1] * 2, [0, 1] * 4])
def test_rows_are_sorted_or_runs_are_episodes(
    numbers: list[int], terminal: Terminal, folder: Path
) -> None:
    path, more = folder / "log.npz", {"episode": numbers, "terminals": flags()}
    log = Import(terminal, npz(path, **more, next_obs=[1.5 + k for k in range(8)]))
    assert log.followed(log.told(status=3)) == ["runs=episode"]
    npz(path, **more)
    (by,) = re.findall(r"Sort the rows by '(\w+)'", log.told(status=3))
    columns = rows(8, **more)
    order = np.argsort(columns[by], kind="stable")
    npz(path, **{name: np.asarray(column)[order] for name, column in columns.items()})
    assert "2 episodes, 6 steps" in log.done()


@follows(
    "in {} of {} rows, first in row {}, the recorded next observation is not the next row's, ",
    "row {} (from 0) has neither action nor reward, but no end is marked there: fill it, or say",
)
def test_missing_rows_begin_an_episode_and_empty_ones_are_filled(
    terminal: Terminal, folder: Path
) -> None:
    columns = rows(**{**ENDED, "terminated": [0] * 4}, next_obs=[1.5, 2.5, 9.5, 4.5])
    log = Import(terminal, write_table("csv", folder, columns))
    assert "2 episodes, 4 steps" in log.done(*options(log.told(status=3)))
    bare: Columns = {"action": [0.25, None, 0.25, 0.25], "reward": [1.0, None, 1.0, 1.0]}
    write_table("csv", folder, rows(**bare, **{**ENDED, "terminated": flags(3, of=4)}))
    log.told(status=3)
    ways: list[Columns] = [
        {"action": [0.25] * 4, "reward": [1.0] * 4, **ENDED},
        {**bare, "terminated": flags(1, 3, of=4), "truncated": [0] * 4},
        {**bare, "terminated": flags(3, of=4), "truncated": flags(1, of=4)},
        {**bare, "terminated": flags(3, of=4), "episode": [0, 0, 1, 1]},
    ]
    for way in ways:
        write_table("csv", folder, rows(**way))
        assert "2 episodes" in log.done()


# -- last rows that are observations


@follows(
    "--layout ogbench names the columns, and so does the mapping: leave one of them out. In a",
    "the log has next observations, so an episode's last row is a step like any other: leave",
    "row {} (from 0) is an episode of its own, an observation without a step: remove it, or read",
)
def test_last_rows_are_observations_or_steps(terminal: Terminal, folder: Path) -> None:
    columns = {"observations": [0.0, 1, 2, 3], "actions": [0.25] * 4, "terminals": [0, 1, 0, 1]}
    reward = ("--reward", "constant:0")
    log = Import(terminal, write_table("csv", folder, columns))
    text = "observation: observations\naction: actions\ntruncated: terminals\n"
    layout, mapping = ("--layout", "ogbench"), ("--mapping", written(folder / "m.yaml", text))
    said = log.told(*layout, *mapping, *reward)
    assert "2 episodes, 2 steps" in log.done(*layout, *reward)
    log.done(*mapping, *reward)
    (key,) = re.findall(r"'(last_row: \w+)'", said)
    written(folder / "m.yaml", f"{text}{key}\n")
    assert "2 episodes, 2 steps" in log.done(*mapping, *reward)

    write_table("csv", folder, {**columns, "terminals": [0, 1, 1, 1]})
    said = log.told(*mapping, *reward, status=3)
    (steps,) = re.findall(r"--layout \w+", said)
    assert "1 episode, 1 step" in log.done(*mapping, *reward, *steps.split())
    (row,) = map(int, re.findall(r"row (\d)", said))
    left = [k for k in range(4) if k not in (row, 3)]
    write_table("csv", folder, {n: [c[k] for k in left] for n, c in columns.items()})
    log.done(*mapping, *reward)

    write_table("csv", folder, {**columns, "n": [1.0, 2, 3, 4]})
    written(folder / "m.yaml", f"{text}{key}\nnext_observation: n\n")
    (out,) = re.findall(r"leave '([^']*)'", log.told(*mapping, *reward))
    written(folder / "m.yaml", f"{text}{key}\nnext_observation: n\n".replace(f"{out}\n", ""))
    log.done(*mapping, *reward)


# -- exports


@follows("{} exists: choose another --out, or remove it")
def test_an_export_gets_another_name_or_room(terminal: Terminal, folder: Path) -> None:
    words = Import(terminal, write_table("npz", folder, rows(**ENDED))).words("--id", NEW)
    terminal.done(*words)
    words = ["data", "export", NEW, "--to", "npz", "--out"]
    terminal.told(*words, folder / "log.npz")
    terminal.done(*words, folder / "other.npz")
    (folder / "log.npz").unlink()
    terminal.done(*words, folder / "log.npz")
