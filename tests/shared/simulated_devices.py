"""Python code run on four simulated devices, in a process of its own."""

import json
import os
import subprocess
import sys

from quick_compilation import FLAGS


def run_on_four_devices(code):
    """Returns what the code has printed last, as JSON; the code must end well."""
    flags = f"--xla_force_host_platform_device_count=4 {FLAGS}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
