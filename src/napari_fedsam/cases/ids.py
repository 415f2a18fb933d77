"""Case ids: random, so that nothing about the patient can be read from them."""

import re
import secrets

CASE_ID = re.compile(r"[0-9a-f]{16}")


def new_case_id() -> str:
    """Return 16 random hexadecimal digits."""
    return secrets.token_hex(8)
