"""RESULTS.md: sections that scripts write, between markers, amid what people write."""

import os
import pathlib
import platform
import sys
import time

from msa_flax import files

sys.path.append(str(pathlib.Path(__file__).parents[1]))  # pages.py lies beside the other scripts
from pages import write_between

RESULTS = pathlib.Path(__file__).with_name("RESULTS.md")


def write_section(path: pathlib.Path, name: str, text: str) -> None:
    """Puts ``text`` in the place of the section ``name``, or at the end; the rest stays.

    Raises:
        UserError: the section has a beginning and no end.
    """
    page = path.read_text() if path.exists() else "# Results of the benchmarks\n"
    if f"<!-- {name} -->" not in page:
        files.write_text(path, f"{page.rstrip()}\n\n<!-- {name} -->\n<!-- /{name} -->\n")
    write_between(path, name, text.strip())


def provenance() -> str:
    """Returns the command, the date and the machine."""
    arguments = [*sys.argv[1:]]
    for option, shown in (
        ("--results", None),
        ("--record", None),
        ("--root", "DIR"),
        ("--folder", "DIR"),
        ("--weights", "FILE.h5"),
        ("--beam", "PYTHON"),
    ):
        if option in arguments[:-1]:  # where files are on this machine is nobody else's business
            i = arguments.index(option)
            arguments[i : i + 2] = [option, shown] if shown else []
    script = f"experiments/benchmarks/{pathlib.Path(sys.argv[0]).name}"
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return f"    {' '.join(['python', script, *arguments])}\n\n{date}; {machine()}."


def machine() -> str:
    """Returns what this computer is: system, processor, cores, wide vectors, memory."""
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    model = facts.get("model name", platform.processor() or "unknown processor")
    vectors = "with" if "avx512f" in facts.get("flags", "").split() else "without"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    python = platform.python_version()
    return f"{system} ({model}, {vectors} AVX-512), {memory:.0f} GiB, Python {python}"
