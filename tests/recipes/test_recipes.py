"""Law 9: a recipe is closed, its layers have an order, and what is resolved can be read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.errors import UsageError
from baq_cli.recipes.load import parse_overrides, read_layer, resolve, to_yaml
from baq_cli.recipes.names import recipe_names
from baq_cli.recipes.schema import Recipe
from baq_cli.recipes.shipped import open_recipe


def resolved(*layers: dict[str, Any], algo: str = "iql") -> Any:
    return resolve([{"algo": algo}, *layers], method_configs())


def refusal(*layers: dict[str, Any], algo: str = "iql") -> str:
    with pytest.raises(UsageError) as caught:
        resolved(*layers, algo=algo)
    return str(caught.value)


def overridden(*words: str, algo: str = "iql") -> Any:
    return resolved(parse_overrides(words), algo=algo)


# -- closed


@pytest.mark.parametrize(
    ("layer", "path", "nearest"),
    [
        ({"sedes": [1]}, "sedes", "seeds"),
        ({"evaluation": {"episods": 3}}, "evaluation.episods", "episodes"),
        ({"iql": {"expectle": 0.9}}, "iql.expectle", "expectile"),
        ({"iql": {"learning_rat": 1e-3}}, "iql.learning_rat", "learning_rate"),
        ({"shared": {"critic": 3}}, "shared.critic", "critics"),
        ({"awac": {"temprature": 1}}, "awac.temprature", "temperature"),
        ({"baq": {"td3_bc": {"alhpa": 1}}}, "baq.td3_bc.alhpa", "alpha"),
        ({"iqll": {}}, "iqll", "iql"),
        ({"share": {}}, "share", "shared"),
    ],
)
def test_an_unknown_key_is_refused_with_its_path_and_the_nearest_key(
    layer: dict[str, Any], path: str, nearest: str
) -> None:
    message = refusal(layer)
    assert f"unknown recipe key '{path}'" in message
    assert f"did you mean '{nearest}'?" in message


@pytest.mark.parametrize(
    ("key", "algo", "path"),
    [
        ("expectile", "iql", "iql.expectile"),
        ("hidden", "baq", "baq.hidden"),
        ("every_env_steps", "iql", "evaluation.every_env_steps"),
    ],
)
def test_a_key_without_its_section_is_refused_with_its_whole_path(
    key: str, algo: str, path: str
) -> None:
    assert f"unknown recipe key '{key}'; did you mean '{path}'?" in refusal({key: 1}, algo=algo)


def test_a_key_of_another_method_or_without_effect_is_not_offered() -> None:
    assert "expectile" not in refusal({"expectile": 0.7}, algo="awac").partition(";")[2]
    assert "bc.critics" not in refusal({"critics": 2}, algo="bc")


def test_a_key_like_no_other_is_refused_with_the_keys_there_are() -> None:
    message = refusal({"evaluation": {"qqqq": 3}})
    assert "known: background, episodes, estimate_updates, every_env_steps" in message


def test_every_unknown_key_is_named_at_once() -> None:
    message = refusal({"sedes": [1], "evaluation": {"episods": 3}})
    assert "'sedes'" in message
    assert "'evaluation.episods'" in message


@pytest.mark.parametrize(
    ("algo", "nearest"),
    [
        ("iqll", "iql"),
        ("calql", "cal_ql"),
        ("td3bc", "td3_bc"),
        ("bag", "baq"),
        ("IQL", "iql"),
        ("TD3+BC", "td3_bc"),
        ("Cal-QL", "cal_ql"),
    ],
)
def test_an_unknown_algorithm_is_refused_with_the_nearest(algo: str, nearest: str) -> None:
    message = refusal(algo=algo)
    assert f"unknown algorithm '{algo}'; did you mean '{nearest}'?" in message


@pytest.mark.parametrize(
    ("text", "value"), [("010", 10), ("08", 8), ("0_1", 1), ("1:30", None), ("0x10", 16)]
)
def test_a_number_is_read_as_it_is_written(text: str, value: int | None) -> None:
    if value is None:
        with pytest.raises(UsageError, match="a whole number is expected, written out"):
            overridden(f"iql.batch_size={text}")
    else:
        assert overridden(f"iql.batch_size={text}").method.batch_size == value


def test_a_key_that_a_file_has_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text("iql: {beta: 1}\nseeds: [0]\niql: {expectile: 0.9}\n")
    with pytest.raises(UsageError, match="the key 'iql' is there again in line 3"):
        read_layer(tmp_path / "twice.yaml")
    (tmp_path / "over.yaml").write_text("a: &a {b: 1, c: 2}\nd: {<<: *a, b: 3}\n")
    assert read_layer(tmp_path / "over.yaml")["d"] == {"b": 3, "c": 2}


def test_off_is_the_word_where_that_is_a_choice() -> None:
    assert overridden("guard.action=off").run.guard.action == "off"
    assert overridden("baq.priority=off", algo="baq").method.priority == "off"


def test_what_keys_are_to_each_other_is_said_of_the_recipe() -> None:
    assert refusal({"no_env": True, "env": "a"}).startswith("the recipe: no_env (--no-env) and env")


def test_a_list_with_a_wrong_value_is_not_called_too_short() -> None:
    assert len(refusal({"seeds": [1.5]}).splitlines()) == 1


def test_a_recipe_without_a_method_is_refused() -> None:
    with pytest.raises(UsageError, match="names no method"):
        resolve([{"seeds": [0]}], method_configs())


@pytest.mark.parametrize(
    ("layer", "path"),
    [
        ({"gradient_steps": 0}, "gradient_steps"),
        ({"gradient_steps": "many"}, "gradient_steps"),
        ({"iql": {"expectile": 1.0}}, "iql.expectile"),
        ({"iql": {"hidden": []}}, "iql.hidden"),
        ({"iql": {"discount": 1.0}}, "iql.discount"),
        ({"evaluation": {"episodes": 0}}, "evaluation.episodes"),
        ({"evaluation": 3}, "evaluation"),
        ({"baq": {"critics": 1}}, "baq.critics"),
        ({"enoto": {"critics": 1}}, "enoto.critics"),  # a spread needs two
        ({"iql": 5}, "iql"),
        ({"shared": 5}, "shared"),
        ({"shared": ["hidden"]}, "shared"),
        ({"shared": "hidden"}, "shared"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_path(
    layer: dict[str, Any], path: str
) -> None:
    assert f"'{path}'" in refusal(layer)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ({"seeds": 3}, "a list is expected, as [1, 2], found 3"),
        ({"iql": {"hidden": "64,64"}}, "a list is expected, as [1, 2], found '64,64'"),
        ({"evaluation": 3}, "a mapping of keys to values is expected, found 3"),
        ({"env_steps": "1e6"}, "a whole number is expected, written out, as 1000000, found '1e6'"),
        ({"seeds": [1, 1]}, "recipe key 'seeds': seeds must differ, found [1, 1]"),
    ],
)
def test_what_is_expected_is_said_in_words_of_a_recipe(
    layer: dict[str, Any], expected: str
) -> None:
    assert refusal(layer).endswith(expected)


@pytest.mark.parametrize("word", ["yes", "no", "true", "on"])
@pytest.mark.parametrize("key", ["utd", "beta", "policy_hidden", "online_share", "reward_scale"])
def test_yes_and_no_are_no_numbers(key: str, word: str) -> None:
    said = refusal(parse_overrides([f"iql.{key}={word}"]))
    assert f"recipe key 'iql.{key}" in said


def test_yes_and_no_are_what_a_switch_takes() -> None:
    layer = parse_overrides(["iql.layer_norm=yes", "iql.policy_cosine=no", "env_workers=true"])
    recipe = resolve([{"algo": "iql"}, layer], method_configs())
    assert (recipe.method.layer_norm, recipe.run.env_workers) == (True, True)
    assert recipe.method.model_dump()["policy_cosine"] is False


@pytest.mark.parametrize(("seeds", "found"), [([1, 1], "[1, 1]"), ([-1], "-1")])
def test_seeds_differ_and_are_not_negative(seeds: list[int], found: str) -> None:
    assert found in refusal({"seeds": seeds})


# -- layers


def test_later_layers_win_key_by_key() -> None:
    recipe = resolved(
        {"env_steps": 5, "evaluation": {"episodes": 2, "every_env_steps": 7}, "iql": {"beta": 1.0}},
        {"env_steps": 6, "evaluation": {"episodes": 3}, "iql": {"expectile": 0.9}},
    )
    assert recipe.run.env_steps == 6
    assert (recipe.run.evaluation.episodes, recipe.run.evaluation.every_env_steps) == (3, 7)
    assert (recipe.method.beta, recipe.method.expectile) == (1.0, 0.9)


def test_a_later_algo_takes_its_own_section_and_drops_the_other() -> None:
    recipe = resolved({"iql": {"beta": 9.0}, "awac": {"temperature": 0.5}}, {"algo": "awac"})
    assert isinstance(recipe.method, METHODS["awac"].Config)
    assert recipe.method.temperature == 0.5
    assert set(recipe.as_dict()) & set(METHODS) == {"awac"}


def test_layers_are_not_changed_by_resolving_them() -> None:
    layer = {"shared": {"critics": 3}, "iql": {"beta": 1.0}, "evaluation": {"episodes": 2}}
    resolved(layer, {"evaluation": {"episodes": 3}, "iql": {"beta": 2.0}})
    assert layer == {
        "shared": {"critics": 3},
        "iql": {"beta": 1.0},
        "evaluation": {"episodes": 2},
    }


@pytest.mark.parametrize("algo", sorted(METHODS))
def test_shared_keys_hold_for_every_method_that_has_them(algo: str) -> None:
    recipe = resolved({"shared": {"hidden": [8], "critics": 3}}, algo=algo)
    assert recipe.method.hidden == (8,)
    has_critics = "critics" not in METHODS[algo].Config.unused
    assert recipe.method.critics == (3 if has_critics else 2)


@pytest.mark.parametrize("algo", [name for name in sorted(METHODS) if METHODS[name].Config.unused])
def test_a_key_without_effect_is_refused_and_not_written(algo: str) -> None:
    key = min(METHODS[algo].Config.unused)
    value = getattr(METHODS[algo].Config(), key)
    with pytest.raises(UsageError, match=f"'{key}' has no effect"):
        resolved({algo: {key: value}}, algo=algo)
    assert key not in resolved(algo=algo).as_dict()[algo]


def test_between_shared_and_a_section_the_later_layer_wins_and_in_one_layer_the_section() -> None:
    shared, section = {"critics": 3, "discount": 0.5}, {"critics": 5}
    for layers, critics in (
        (({"shared": shared, "iql": section},), 5),
        (({"shared": shared}, {"iql": section}), 5),
        (({"iql": section}, {"shared": shared}), 3),
    ):
        method = resolved(*layers).method
        assert (method.critics, method.discount) == (critics, 0.5)


def test_shared_takes_only_keys_that_every_method_has() -> None:
    assert "unknown recipe key 'shared.expectile'" in refusal({"shared": {"expectile": 0.9}})


# -- overrides


def test_override_values_are_yaml() -> None:
    recipe = overridden(
        "seeds=[3, 5]",
        "env=Hopper-v5",
        "iql.beta=10",
        "iql.learning_rate=3e-4",
        "iql.online_share=null",
        "iql.policy_cosine=false",
        "iql.hidden=[32, 16]",
        "evaluation.episodes=4",
    )
    assert recipe.run.seeds == (3, 5)
    assert recipe.run.env == "Hopper-v5"
    assert recipe.run.evaluation.episodes == 4
    method = recipe.method
    assert (method.beta, method.learning_rate, method.hidden) == (10.0, 3e-4, (32, 16))
    assert method.online_share is None
    assert method.policy_cosine is False


def test_overrides_of_one_section_join_and_the_last_of_one_key_wins() -> None:
    assert parse_overrides(["a.b=1", "a.c.d=2", "a.b=3", "e==x"]) == {
        "a": {"b": 3, "c": {"d": 2}},
        "e": "=x",
    }


@pytest.mark.parametrize("word", ["seeds", "=3", "iql.=3", ".beta=3", "iql..beta=3"])
def test_a_word_that_is_no_override_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match=r"expected key\.sub=value"):
        parse_overrides([word])


def test_an_override_that_is_not_yaml_is_refused() -> None:
    with pytest.raises(UsageError, match="not YAML"):
        parse_overrides(["seeds=[1"])


def test_baqs_priority_can_be_switched_off_as_it_is_written() -> None:
    """YAML 1.1 reads a bare `off` as false."""
    for word in ("baq.priority=off", "baq.priority='off'"):
        assert overridden(word, algo="baq").method.priority == "off"


# -- files


@pytest.mark.parametrize("algo", sorted(METHODS))
def test_a_resolved_recipe_reads_back_as_itself(algo: str, tmp_path: Path) -> None:
    before = resolved(
        {"seeds": [2, 4], "dataset": "a/b-v0", "shared": {"hidden": [8, 8], "reward_scale": 0.1}},
        algo=algo,
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml(before, f"baq pretrain --algo {algo}"), encoding="utf-8")
    assert file.read_text(encoding="utf-8").splitlines()[0] == f"# baq pretrain --algo {algo}"
    after = resolve([read_layer(file)], method_configs())
    assert after == before


def test_a_resolved_baq_recipe_keeps_what_was_set_for_its_base() -> None:
    before = overridden(
        "baq.base=iql", "baq.iql.expectile=0.9", "baq.priority='off'", "baq.critics=6", algo="baq"
    )
    after = resolve([before.as_dict()], method_configs())
    assert isinstance(after, Recipe)
    assert after.method == before.method
    assert after.method.base_config() == before.method.base_config()


@pytest.mark.parametrize("content", ["- a\n- b\n", "just text", "", "1: 2\n"])
def test_a_file_that_is_no_mapping_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="not a mapping"):
        read_layer(file)


def test_a_file_that_is_not_yaml_or_not_there_is_refused_by_name(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1", encoding="utf-8")
    with pytest.raises(UsageError, match=r"broken\.yaml is not valid YAML"):
        read_layer(broken)
    with pytest.raises(UsageError, match=r"absent\.yaml"):
        read_layer(tmp_path / "absent.yaml")


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_resolves_for_every_method(name: str) -> None:
    layer = open_recipe(name)
    for algo in [layer["algo"]] if "algo" in layer else ("baq", "iql"):  # checks all sections
        recipe = resolved(layer, algo=algo)
        assert recipe.run.dataset == layer.get("dataset")
        assert recipe.run.dataset or recipe.run.env, "a run has a dataset or an environment"


def test_no_recipe_sets_a_key_of_baq_by_hand_but_sizes_of_networks() -> None:
    """Those of Pendulum are older than the rule, and published numbers were made with them."""
    sizes = {"hidden", "policy_hidden", "behavior_hidden"}
    matched = {"warmup_env_steps"}  # all methods have it alike where the rule is followed
    for name in recipe_names():
        section = open_recipe(name).get("baq", {})
        assert name.startswith("pendulum/") or section.keys() <= sizes | matched, name


# -- BAQ and its base


@pytest.mark.parametrize("base", ["td3_bc", "iql", "cql"])
@pytest.mark.parametrize("key", ["critics", "batch_size", "online_share", "learning_rate"])
def test_baq_refuses_a_key_in_its_bases_section_that_its_own_decides(base: str, key: str) -> None:
    message = refusal({"baq": {base: {key: 1}}}, algo="baq")
    assert f"'{base}.{key}' is shared with the base: set '{key}' itself" in message


@pytest.mark.parametrize("key", ["learning_rate", "policy_learning_rate"])
def test_a_learning_rate_set_for_baq_reaches_its_base(key: str) -> None:
    """A closed recipe has no key without an effect."""
    alone = overridden(f"baq.{key}=0.01", algo="baq").method.base_config()
    assert getattr(alone, key) == 0.01
    shared = overridden(f"shared.{key}=0.01", algo="baq").method.base_config()
    assert getattr(shared, key) == 0.01
