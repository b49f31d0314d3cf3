"""What is found wrong before torch is imported."""

import subprocess
import sys

import pytest

from simtune import plugins, run_tuning
from simtune.errors import DataError, EnvironmentSpecError, OptionError, PluginError, RegistryError
from simtune.train.checks import check_inputs, check_model
from simtune.train.options import parse_options


@pytest.fixture(autouse=True)
def fresh_plugins():
    plugins.reset()
    yield
    plugins.reset()


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "base"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return str(path)


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"prompt": "?", "output": "!", "rating": 5}]')
    return str(path)


def options(method="ppo", **values):
    return parse_options(method, values)


def test_good_inputs_pass(model, dataset, tmp_path):
    check_inputs(options(llm_path=model, dataset_path=dataset))
    check_inputs(options("sft", llm_path=model, dataset_path=dataset))
    check_inputs(options(llm_path=model, env="FrozenLake-v1"))


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OptionError, match=r"(?s)no base model in.*missing.*pull-base"):
        check_model(str(tmp_path / "missing"))
    with pytest.raises(OptionError, match=r"without config.json"):
        check_model(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(OptionError, match="a LoRA adapter"):
        check_model(str(tmp_path))


def test_exactly_one_source_of_data(model, dataset):
    with pytest.raises(OptionError, match=r"(?s)one source.*--env, --store, --dataset-path"):
        check_inputs(options(llm_path=model))
    with pytest.raises(OptionError, match=r"(?s)two sources.*--env and --dataset-path"):
        check_inputs(options(llm_path=model, env="FrozenLake-v1", dataset_path=dataset))
    with pytest.raises(OptionError, match=r"(?s)exactly one of --store, --dataset-path"):
        check_inputs(options("sft", llm_path=model))


def test_a_source_holds_something(model, tmp_path):
    empty = tmp_path / "empty.json"
    empty.touch()
    with pytest.raises(DataError, match=r"data set '.*empty.json' is empty"):
        check_inputs(options(llm_path=model, dataset_path=str(empty)))
    with pytest.raises(DataError, match=r"data set '.*no.json' does not exist"):
        check_inputs(options(llm_path=model, dataset_path=str(tmp_path / "no.json")))
    with pytest.raises(DataError, match=r"(?s)is a directory.*--store"):
        check_inputs(options(llm_path=model, dataset_path=str(tmp_path)))
    with pytest.raises(OptionError, match="store does not exist"):
        check_inputs(options(llm_path=model, store=str(tmp_path / "no")))
    (tmp_path / "store").mkdir()
    with pytest.raises(DataError, match="store is empty"):
        check_inputs(options(llm_path=model, store=str(tmp_path / "store")))


def test_an_environment_is_made_once_to_see_that_it_works(model):
    with pytest.raises(EnvironmentSpecError, match="NoSuchLake"):
        check_inputs(options(llm_path=model, env="NoSuchLake-v1"))
    with pytest.raises(EnvironmentSpecError, match="Discrete"):
        check_inputs(options(llm_path=model, env="Pendulum-v1"))
    check_inputs(options(llm_path=model, env="FrozenLake-v1", env_arg={"map_name": "8x8"}))


def test_rewards_and_plugins_are_looked_up(model, dataset, tmp_path):
    with pytest.raises(OptionError, match="did you mean 'success'"):
        check_inputs(options(llm_path=model, env="FrozenLake-v1", reward=["sucess"]))
    with pytest.raises(PluginError, match="does not exist"):
        check_inputs(options(llm_path=model, dataset_path=dataset, plugin=["no.py"]))
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from simtune import hookimpl\n@hookimpl\ndef simtune_register_rewards(register):\n"
        "    register('mine', lambda episode: 1.0)\n"
    )
    check_inputs(
        options(
            llm_path=model, env="FrozenLake-v1", plugin=[str(plugin)], reward=["mine", "valid=2"]
        )
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_envs": 4}, "--num-envs is about roll-outs"),
        ({"env_arg": {"size": 8}}, "--env-arg is about roll-outs"),
        ({"reward": ["valid"]}, "a data set has its own ratings"),
        ({"iterations": 2, "critic_warmup": 2}, r"(?s)value head only.*got: 2 of 2"),
    ],
)
def test_options_that_would_be_ignored_are_refused(model, dataset, given, said):
    with pytest.raises(OptionError, match=said):
        check_inputs(options(llm_path=model, dataset_path=dataset, **given))


def test_the_registry_is_looked_at_before_training(model, dataset, tmp_path):
    registry = {"llm_path": model, "dataset_path": dataset, "models_dir": str(tmp_path)}
    with pytest.raises(RegistryError, match="is empty"):
        check_inputs(options(**registry, adapter="latest"))
    (tmp_path / "registry.json").write_text('{"format": 1, "mod')
    with pytest.raises(RegistryError, match="cannot be read"):
        check_inputs(options(**registry))


def test_run_tuning_refuses_what_the_command_refuses(model):
    with pytest.raises(OptionError, match="unknown training method 'dqn'"):
        run_tuning("dqn", llm_path=model)
    with pytest.raises(OptionError, match="did you mean 'learning_rate'"):
        run_tuning(tuning_mode="sft", llm_path=model, leaning_rate=1)
    with pytest.raises(OptionError, match="no base model is named"):
        run_tuning()
    with pytest.raises(OptionError, match=r"(?s)one source"):
        run_tuning(tuning_mode="ppo", llm_path=model)


def test_wrong_input_is_found_without_torch():
    code = (
        "import sys, simtune\n"
        "try: simtune.run_tuning('ppo', llm_path='no-model', env='E')\n"
        "except simtune.errors.OptionError: pass\n"
        "print({'torch', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"keep": "last"}, "--keep is about evaluations"),
        ({"eval_env": "FrozenLake-v1"}, "--eval-env is about evaluations"),
        ({"eval_every": 1, "eval_seed": 1_000_100, "seed": 1}, "seeds that are trained on"),
        ({"eval_every": 1, "eval_seed": 999_950, "seed": 1}, "seeds that are trained on"),
        ({"eval_every": 1, "eval_env_arg": {"size": "x"}}, "size"),
    ],
)
def test_evaluations_that_cannot_be_are_found_before_training(model, values, said):
    with pytest.raises((OptionError, EnvironmentSpecError), match=said):
        check_inputs(options(llm_path=model, env="FrozenLake-v1", **values))


def test_logged_data_can_be_evaluated_in_an_environment_of_its_own(model, dataset):
    logged = {"llm_path": model, "dataset_path": dataset, "eval_every": 1}
    with pytest.raises(OptionError, match="no environment to evaluate in"):
        check_inputs(options(**logged))
    check_inputs(options(**logged, eval_env="FrozenLake-v1", num_envs=2))
    with pytest.raises(OptionError, match="--capture-root is about roll-outs"):
        check_inputs(options(**logged, eval_env="FrozenLake-v1", capture_root="x"))
