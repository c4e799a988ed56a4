"""PyTorch, timed on request: channels_last, eager or compiled, in its own environment.

--form "frozen" is ``torch.compile`` with the weights as constants, which is how its authors
recommend predicting on a CPU. With --bf16 the forward pass is autocast.
"""

import os
import sys
import tempfile
import types
import unittest.mock
from collections.abc import Callable
from typing import Any

import torch
import worker
from torch.nn.functional import binary_cross_entropy_with_logits
from torch_network import Network

CAMS = {  # our names of methods, and those of the package grad-cam
    "gradcam": "GradCAM",
    "gradcam_plus_plus": "GradCAMPlusPlus",
    "layercam": "LayerCAM",
    "score_cam": "ScoreCAM",
    "ablation_cam": "AblationCAM",
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    """Answers requests until its input ends."""
    options = worker.options("eager", "compile", "frozen")
    torch.manual_seed(0)
    torch._inductor.config.freezing = options.form == "frozen"
    compiled = torch.compile if options.form != "eager" else lambda function: function
    autocast = torch.autocast(DEVICE, torch.bfloat16, enabled=options.bf16)

    def make() -> Network:
        attention = options.network == worker.PAPER1
        return Network(worker.backbone(options.network), attention=attention)

    def network() -> Network:
        made: Any = make()  # the types that PyTorch ships know no memory format of a module
        return made.to(DEVICE, memory_format=torch.channels_last)

    def images(batch: int) -> torch.Tensor:
        ready = torch.from_numpy(worker.ready_images(batch, options.size))
        return ready.permute(0, 3, 1, 2).to(DEVICE, memory_format=torch.channels_last)

    def train(batch: int, count: int) -> worker.Turn:
        model = network().train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True)
        x, y = images(batch), torch.from_numpy(worker.labels(batch)).to(DEVICE)

        @compiled
        def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            with autocast:
                logits = model(x)
            return binary_cross_entropy_with_logits(logits.float(), y)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss_of(x, y).backward()
            optimizer.step()

        return _turn(step, count)

    def infer(batch: int, count: int) -> worker.Turn:
        model, x = network().eval(), images(batch)

        @compiled
        def predict(x: torch.Tensor) -> torch.Tensor:
            with autocast:
                return model(x)

        @torch.inference_mode()
        def work() -> None:
            predict(x).cpu()

        return lambda: worker.timed(work, count)

    def explain(name: str) -> worker.Make:
        def make(batch: int, count: int) -> worker.Turn:
            model, x = network().eval(), images(batch)
            cam = getattr(_grad_cam(), name)(model=model, target_layers=[model.backbone[-1]])
            cam.batch_size = 32  # perturbed images per pass, as many as ours has
            targets = [lambda logit: logit] * batch
            return lambda: worker.timed(lambda: cam(input_tensor=x, targets=targets), count)

        return make

    counted = [t for name, t in make().state_dict().items() if "num_batches" not in name]
    worker.serve(
        {"train": train, "infer": infer, **{key: explain(name) for key, name in CAMS.items()}},
        versions={"PyTorch": torch.__version__},
        parameters=sum(t.numel() for t in counted),
        device_gib=_device_gib,
    )


def _grad_cam() -> types.ModuleType:
    """Returns the package grad-cam.

    It imports torchvision for pictures and boxes, which are not needed here, and which must be
    built for the very PyTorch that is installed: a stand-in.
    """
    for name in ("", ".transforms", ".transforms.functional"):
        sys.modules.setdefault(f"torchvision{name}", unittest.mock.MagicMock())
    import pytorch_grad_cam

    return pytorch_grad_cam


def _turn(step: Callable[[], None], count: int) -> worker.Turn:
    if DEVICE == "cpu":
        return lambda: worker.timed(step, count)

    def together() -> None:  # waiting for the GPU after every step would add to each
        for _ in range(count):
            step()
        torch.cuda.synchronize()

    return lambda: worker.timed(together, units=count)


def _device_gib() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else 0.0


with tempfile.TemporaryDirectory() as cache:  # an earlier run's must not shorten the compilation
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    main()
