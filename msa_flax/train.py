"""Train, evaluate and explain a model: python -m msa_flax.train --workdir DIR.

Without --config the embedded default runs: a narrow MSA-CSpineNet on a synthetic cervical-CT
phantom, in a few minutes, without a network and without data of yours. For the experiment of the
paper, on images in DATA/{train,val}/{fracture,normal}/, add --config=experiments/paper1_msa.py
--config.data.root=DATA.

The same command again continues where the run stopped, or says that it is finished. All devices
share each batch. So do several processes, if each is started with the same command and with
--coordinator, --processes and --process; only process 0 writes.
"""

import json
import logging
from types import SimpleNamespace

from absl import flags

from msa_flax import cli

log = logging.getLogger("msa_flax")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of the command."""
    cli.define_workdir(values, "folder of the run; made if it is not there")
    cli.define_config(values)
    cli.define_accept_changes(values)
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of process 0, if several train together", flag_values=values
    )
    flags.DEFINE_integer("processes", None, "how many processes train together", flag_values=values)
    flags.DEFINE_integer("process", None, "the number of this process, from 0", flag_values=values)
    flags.DEFINE_boolean(
        "print_config", False, "print the configuration as JSON and end", flag_values=values
    )


def main(args: SimpleNamespace) -> None:
    """Runs the command."""
    if args.print_config:
        print(json.dumps(args.config.to_dict(), indent=2))
        return
    workdir = cli.workdir(args, trained=False)
    args.config.validate()
    from msa_flax.data import settled

    args.config.data = settled(args.config.data)  # a run must not depend on where it is started
    if args.process:  # of processes that train together, the first one speaks for all
        log.setLevel(logging.ERROR)
    log.info("training %s in %s: loading JAX and TensorFlow", args.config.name, workdir)
    from msa_flax.models import check_network
    from msa_flax.results.training import train_run
    from msa_flax.training import hosts
    from msa_flax.training.workdir import check_workdir
    from msa_flax.training.xla import prepare_jax

    prepare_jax()
    check_network(args.config)
    hosts.join(args.coordinator, args.processes, args.process)
    accept = args.accept_changes
    if accept and args.processes:
        raise cli.UsageError(
            "--accept_changes: expected training by one process; leave --processes"
        )
    changes = hosts.first(lambda: check_workdir(workdir, args.config, accept=accept))
    train_run(workdir, args.config, changes=changes or ())


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
