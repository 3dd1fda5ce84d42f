"""A chart of shares against amounts, drawn with letters for a terminal."""

from collections.abc import Mapping, Sequence

WIDTH = 64
HEIGHT = 12
BOTH = "#"


def share_chart(
    curves: Mapping[str, Sequence[float]], lowest: float, highest: float, x_name: str, y_name: str
) -> list[str]:
    """Return lines that draw curves of shares (0…1), each given at equally spaced places.

    A curve's key is the letter it is drawn with; where two of them meet stands `#`. `lowest` and `highest`
    are the amounts at both ends.
    """
    rows = [[" "] * WIDTH for _ in range(HEIGHT + 1)]
    for letter, shares in curves.items():
        for column in range(WIDTH):
            share = shares[round(column * (len(shares) - 1) / (WIDTH - 1))]
            row = rows[round((1 - share) * HEIGHT)]
            row[column] = letter if row[column] == " " else BOTH
    lines = [y_name]
    for n, row in enumerate(rows):
        label = f"{1 - n / HEIGHT:>5.0%}" if n % 3 == 0 else " " * 5
        lines.append(f"{label} |{''.join(row)}".rstrip())
    left, right = f"{lowest:,.0f}", f"{highest:,.0f}"
    lines.append(f"      +{'-' * WIDTH}")
    lines.append(f"       {left}{x_name.center(WIDTH - len(left) - len(right))}{right}")
    return lines
