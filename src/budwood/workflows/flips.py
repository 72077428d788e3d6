"""placeholder until merged"""
from dataclasses import dataclass
@dataclass(frozen=True)
class FlipFindings:
    harmless: tuple[str, ...]
    sentence: str
def find_harmless_flips(ladder) -> FlipFindings:  # type: ignore
    return FlipFindings(("h",), "flips assumed")
