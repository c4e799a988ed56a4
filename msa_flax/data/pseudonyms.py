"""The secret that pseudonyms of patients are made with: drawn once, kept in the cache folder.

It is not kept with a run, because whoever has it can try out identifiers. All runs and evaluations
with one cache folder give a patient the same pseudonym; where the file is deleted, new ones are
given, and splits stay as they are: they do not depend on the names of groups.
"""

import contextlib
import os
import secrets

from msa_flax.data.examples import DataError
from msa_flax.files import cache_dir

NAME = "pseudonyms.key"  # in the cache folder


def read_salt() -> str:
    """Returns the secret of this cache folder, 64 hexadecimal digits; makes it if there is none.

    Raises:
        DataError: the cache folder cannot be written, or the file holds something else.
    """
    path = cache_dir() / NAME
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            own = path.with_name(f".{NAME}.{os.getpid()}.tmp")
            with os.fdopen(os.open(own, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            with contextlib.suppress(FileExistsError):  # another process was faster: its one counts
                os.link(own, path)
            own.unlink()
        salt = path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: expected the secret that pseudonyms are made with: {error}; name another "
            "cache in MSA_FLAX_CACHE"
        ) from error
    if len(salt) != 64:
        raise DataError(f"{path}: expected 64 hexadecimal digits; delete it for a new secret")
    return salt
