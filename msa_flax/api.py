"""The public Python functions, and the wiring that more than one command needs."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from msa_flax import files, saliency, weights
from msa_flax.config import Config
from msa_flax.evaluation.predictions import predict_logits
from msa_flax.models import Classifier, create_model, fold_batch_norm, scale_images
from msa_flax.saliency import Explanations, explain_images, make_explain_step
from msa_flax.training import checkpoint, steps
from msa_flax.weights import WeightsReport

Variables = dict[str, Any]
_IMAGES_AT_ONCE = 8  # by methods that vary the image: each needs the memory of many passes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A trained run, ready to predict.

    Attributes:
        workdir: its folder.
        config: its configuration.
        model: the network.
        variables: the network's parameters and running statistics.
        step: the training step they are from.
        checkpoint: "best" or "last".
    """

    workdir: Path
    config: Config
    model: Classifier
    variables: Variables
    step: int
    checkpoint: str

    def results(self, split: str) -> Path:
        """Returns ``eval/<split>/``, or ``eval/<split>-last/`` for the last checkpoint."""
        return self.workdir / "eval" / (split if self.checkpoint == "best" else f"{split}-last")

    def predict(
        self, images: np.ndarray, *, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """Returns the logit of fracture of each image, float32 [n].

        Args:
            images: uint8 [n, s, s], as :func:`msa_flax.preprocess` returns them.
            progress: called with (images done, n).
        """
        return predict_logits(
            functools.partial(self._predict_step, self._folded),
            images,
            batch_size=self.config.eval.batch_size,
            progress=progress,
        )

    def explain(
        self,
        images: np.ndarray,
        *,
        methods: Sequence[str] = ("gradcam",),
        layer: str | None = None,
    ) -> Explanations:
        """Returns logits, maps for both classes by each method, and attention maps.

        Args:
            images: uint8 [n, s, s], as :func:`msa_flax.preprocess` returns them; n >= 1.
            methods: keys of ``msa_flax.saliency.METHODS``.
            layer: the layer whose features are explained, such as "backbone/conv_dw_6"; by default
                the backbone's last. Not for methods that vary the image.

        Raises:
            SaliencyError: no such method or layer; names the choices.
        """
        chosen, size = saliency.choose(methods, layer=layer), self.config.eval.batch_size
        parts = [
            explain_images(
                functools.partial(self._explain_step(names, layer), self._folded),
                images,
                batch_size=min(_IMAGES_AT_ONCE, len(images), size) if from_image else size,
            )
            for from_image in (False, True)
            if (names := tuple(n for n, m in chosen.items() if m.from_image == from_image))
        ]
        maps = {name: maps for part in parts for name, maps in part.maps.items()}
        return dataclasses.replace(parts[0], maps={name: maps[name] for name in chosen})

    def with_random_weights(self, seed: int = 1) -> "Run":
        """Returns the same network with random weights, which has learned nothing.

        Args:
            seed: of the weights.
        """
        size = self.config.data.image_size
        variables = initialise(self.model, image_size=size, seed=seed)
        return dataclasses.replace(self, variables=variables)

    @functools.cached_property
    def _folded(self) -> Variables:
        return fold_batch_norm(self.variables)

    @functools.cached_property
    def _predict_step(self) -> Callable[..., jax.Array]:
        return compiled_predict_step(self.model, self.config)

    def _explain_step(self, methods: tuple[str, ...], layer: str | None) -> Callable[..., Any]:
        key = methods, layer
        if key not in self._explain_steps:
            step = make_explain_step(
                self._features,
                self._head,
                saliency.choose(methods),
                layer_fn=functools.partial(self._at_layer, layer, methods) if layer else None,
            )
            options = steps.compiler_options(many_branches=True)
            self._explain_steps[key] = jax.jit(step, compiler_options=options)
        return self._explain_steps[key]

    def _features(self, variables: Variables, images: Any) -> jax.Array:
        scaled = scaler(self.config)(images)
        features: Any = self.model.apply(variables, scaled, method="features")
        return features

    def _head(self, variables: Variables, features: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        outputs: Any = self.model.apply(
            variables, features, method="head", mutable=["intermediates"]
        )
        logit, sown = outputs
        maps = sown.get("intermediates", {}).get("attention", {})
        return logit, {name: values[0] for name, values in maps.items()}

    def _at_layer(
        self, layer: str, methods: Sequence[str], variables: Variables, images: Any
    ) -> tuple[Any, Any]:
        prepare = scaler(self.config)
        split = saliency.at_layer(self.model, variables, layer, images, prepare=prepare)
        forward = [name for name in methods if saliency.METHODS[name].forward_only]
        if forward and not split.is_cut:
            raise saliency.SaliencyError(
                f"layer: {', '.join(forward)} needs one that everything passes; ways lead around "
                f"{layer!r}; take the block's output, or another method"
            )
        return split.features_fn, split.head_fn

    @functools.cached_property
    def _explain_steps(self) -> dict[Any, Callable[..., Any]]:
        return {}


def load_keras(
    model: Classifier,
    path: str | Path,
    *,
    backbone: str = "mobilenet_v1",
    image_size: int = 224,
    seed: int = 0,
) -> tuple[Variables, WeightsReport]:
    """Returns the model's variables with the backbone taken from a Keras file.

    Attention and head keep their initial values; a classification top in the file is left out.

    Args:
        model: from :func:`create_model`.
        path: ``.h5``, ``.weights.h5`` or ``.keras`` file of the same backbone.
        backbone: key of ``msa_flax.weights.KERAS_FAMILIES``.
        image_size: pixels; any size the network takes gives the same variables.
        seed: of the initial values.

    Raises:
        WeightsError: names every tensor that is missing, unexpected or of another shape.
    """
    if backbone not in weights.KERAS_FAMILIES:
        raise weights.WeightsError(
            f"Keras has no {backbone}, and so no weights for it; expected one of "
            f"{', '.join(sorted(weights.KERAS_FAMILIES))}, or model.pretrained 'none'"
        )
    family = weights.KERAS_FAMILIES[backbone]
    arrays = family.canonical(weights.read(path, layers=family.layers))
    return weights.load(
        initialise(model, image_size=image_size, seed=seed),
        arrays,
        family.rules,
        initial=("attention", "classifier"),
        ignore=family.top,
        source=Path(path).name,
    )


def initialise(model: Classifier, *, image_size: int, seed: int) -> Variables:
    """Returns a model's initial variables, a function of the seed alone.

    ``batch_stats`` is there in any case, empty for a network without running averages.
    """
    images = jnp.zeros((1, image_size, image_size, 3))
    init = jax.jit(functools.partial(model.init, train=False))
    return {"batch_stats": {}, **init(jax.random.key(seed), images)}


def initial_variables(model: Classifier, config: Config) -> tuple[Variables, WeightsReport | None]:
    """Returns the variables that training starts from, as ``model.pretrained`` says."""
    size, seed = config.data.image_size, config.train.seed
    if config.model.pretrained == "none":
        return initialise(model, image_size=size, seed=seed), None
    path = config.model.pretrained
    if path == "imagenet":
        path = str(weights.imagenet_path(config.model.backbone, alpha=config.model.alpha))
    return load_keras(model, path, backbone=config.model.backbone, image_size=size, seed=seed)


def scaler(config: Config, *, dtype: Any = jnp.float32) -> steps.Scale:
    """Returns the function uint8 [b, s, s] -> [b, s, s, 3] of ``dtype`` that the model expects."""
    return functools.partial(
        scale_images,
        preprocess=config.data.preprocess,
        backbone=config.model.backbone,
        dtype=dtype,
    )


def compiled_predict_step(model: Classifier, config: Config) -> Callable[..., jax.Array]:
    """Returns the jit-compiled step (variables, images uint8 [b, s, s]) -> logits [b].

    The variables may be a training run's, or those of :func:`msa_flax.models.fold_batch_norm`.
    """
    return steps.compiled_predict_step(steps.make_predict_step(model, scaler(config)))


def restore(workdir: str | Path, *, checkpoint_name: str = "best") -> Run:
    """Restores a run from its workdir through Orbax.

    Args:
        workdir: a folder written by ``python -m msa_flax.train``.
        checkpoint_name: "best" (lowest validation loss) or "last".

    Raises:
        CheckpointError: no such checkpoint, a damaged one, or one of another model.
    """
    workdir = Path(workdir)
    config = read_config(workdir)
    model = create_model(config.model)
    init = functools.partial(initialise, model, image_size=config.data.image_size, seed=0)
    kept = checkpoint.Checkpoints(workdir, read_only=True)
    variables, step, _ = kept.restore_variables(checkpoint_name, jax.eval_shape(init))
    return Run(
        workdir=workdir,
        config=config,
        model=model,
        variables=variables,
        step=step,
        checkpoint=checkpoint_name,
    )


def read_config(workdir: Path) -> Config:
    """Returns the configuration that a workdir's run was started with."""
    return Config.from_dict(json.loads((workdir / "config.json").read_text())["config"]).validate()


def prepare_jax() -> None:
    """Prepares JAX for a command, before it is used for anything else.

    Turns the persistent compilation cache on, in this project's cache folder, and lets a CPU
    compute in the thread that asks for it: every command waits for its results anyway, and memory
    that :func:`msa_flax.training.memory.keep_memory` keeps is kept for that thread.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_compilation_cache_dir", str(files.cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
