"""Strictness for all tests: warnings are errors, no silent broadcasting, shapes are checked."""

import os
import pathlib
import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs beside it
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import jax
import jaxtyping
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "shared"))  # pytest leaves it out

# Every call of an annotated function in these parts is checked against its shapes.
jaxtyping.install_import_hook(
    ["msa_flax.models", "msa_flax.training", "msa_flax.saliency"], "beartype.beartype"
)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def realdata() -> pathlib.Path:
    """The folder with data/ and weights/; the test skips where there is none."""
    value = os.environ.get("MSA_FLAX_REALDATA")
    if not value:
        pytest.skip("MSA_FLAX_REALDATA is not set")
    folder = pathlib.Path(value)
    if not (folder / "data").is_dir() or not (folder / "weights").is_dir():
        pytest.skip(f"MSA_FLAX_REALDATA={value} has no data/ and weights/")
    return folder.absolute()


# Files whose tests take longest, started first so that no test process ends long after the other.
DEAREST = (
    "experiments/test_soak.py",
    "training/test_hosts.py",
    "test_end_to_end.py",
    "models/test_all_models.py",
    "experiments/test_protocols.py",
    "results/test_training.py",
    "test_privacy.py",
    "test_explain_command.py",
    "data/test_manifest_commands.py",
    "training/test_steps.py",
    "results/test_exports.py",
    "training/test_devices.py",
    "parity/test_efficientnet_b0.py",
    "parity/test_resnet50.py",
    "parity/test_mobilenet_v1.py",
    "saliency/test_methods_networks.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of the dearest files first; the others keep their order."""
    tests = pathlib.Path(__file__).parent
    rank = {tests / name: place for place, name in enumerate(DEAREST)}
    items.sort(key=lambda item: rank.get(item.path, len(DEAREST)))


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps the user's cache out of the tests, and the tests out of the user's cache."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # by all test processes
    os.environ["MSA_FLAX_CACHE"] = str(shared / "cache")
    # What one test has compiled, another one and the processes that it starts need not compile.
    programs = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(shared / "cache/xla"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    # Else the path of the cache is in every key: a process with another path finds nothing.
    os.environ["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"
    jax.config.update("jax_compilation_cache_dir", programs)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


@pytest.fixture(scope="session")
def untrained_run():
    """A maker of trained runs that took no step, and so no time; returns the run as it started."""

    def write_untrained_run(workdir, config):
        from msa_flax.results.training import record
        from msa_flax.run import start
        from msa_flax.training.checkpoint import Checkpoints
        from msa_flax.training.optim import create_optimizer
        from msa_flax.training.steps import create_state

        run = start(workdir, config)
        workdir.mkdir()
        record(run, 0.0)
        state = create_state(run.variables, create_optimizer(config.optim, total_steps=1))
        checkpoints = Checkpoints(workdir)
        checkpoints.save_last(state, {})
        checkpoints.save_best(state, {})
        return run

    return write_untrained_run


@pytest.fixture
def without_pictures(monkeypatch):
    """Lets whole runs in this process draw and explain nothing, where a test is not about that."""
    from msa_flax.results import training

    for name in ("draw_samples", "log_overview", "explain_split", "explain_errors"):
        monkeypatch.setattr(training, name, lambda *_, **__: None)


@pytest.fixture
def quick_programs():
    """Compiles with few optimisations what a test runs a few times only, and no other test does."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A new, empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def small_classifier():
    """A constructor of a tiny classifier: what surrounds a backbone must not depend on it."""
    import flax.linen as nn

    from msa_flax.models import Classifier, Head, MultiScaleSpatialAttention
    from msa_flax.models.layers import BatchNorm, Conv

    class SmallBackbone(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            x = Conv(6, 3, 4, use_bias=False, channels=3, name="conv")(images)
            return BatchNorm("relu6", name="bn")(x, train=train)

    def construct(*, attention=True, head="logit", dropout=0.0):
        block = MultiScaleSpatialAttention() if attention else None
        return Classifier(SmallBackbone(), block, Head(head, dropout))

    return construct
