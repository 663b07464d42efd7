"""Write the share of lines that the tests run into ``CONTRIBUTING.md``, from the report that ``make coverage`` made."""

import json
import re
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


def main(report: Path) -> None:
    """Replace the number in the page, rounded down, and print the files below 90 %."""
    coverage = json.loads(report.read_text())
    for name, entry in sorted(coverage["files"].items()):
        if entry["summary"]["percent_covered"] < 90:
            print(f"{entry['summary']['percent_covered']:5.1f} %  {name}")
    share = int(coverage["totals"]["percent_covered"] * 10) / 10
    text, count = re.subn(r"(<!-- coverage -->)[\d.]+ %", rf"\g<1>{share} %", PAGE.read_text())
    assert count == 1
    PAGE.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
