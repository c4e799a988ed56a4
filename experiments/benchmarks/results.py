"""RESULTS.md: sections that scripts write, between markers, amid what people write."""

import os
import pathlib
import platform
import sys
import time

RESULTS = pathlib.Path(__file__).with_name("RESULTS.md")


def write_section(path: pathlib.Path, name: str, text: str) -> None:
    """Puts ``text`` in the place of the section ``name``, or at the end; the rest stays."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    section = f"{begin}\n{text.strip()}\n{end}"
    old = path.read_text() if path.exists() else "# Results of the benchmarks\n"
    before, found, rest = old.partition(begin)
    if found:
        _, closed, after = rest.partition(end)
        if not closed:
            raise SystemExit(f"{path}: {begin} has no {end}; add it where the section ends")
        new = before + section + after
    else:
        new = f"{old.rstrip()}\n\n{section}\n"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(new)
    os.replace(temporary, path)


def provenance() -> str:
    """Returns the command, the date and the machine."""
    arguments = [*sys.argv[1:]]
    for option, shown in (("--results", None), ("--root", "DIR"), ("--weights", "FILE.h5")):
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
