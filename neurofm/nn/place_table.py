"""Places as rows of tables: of names, and of coordinates in steps of a millimetre."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neurofm.errors import ConfigError


class CodeTable(nn.Module):
    """One learned row for each known code, and one for all others.

    Parameters
    ----------
    codes : sequence of int
        Known codes, each once.
    width : int
        Features of a row.

    Raises
    ------
    ConfigError
        If a code is there twice.
    """

    codes: Tensor
    rows_of: Tensor

    def __init__(self, codes: Sequence[int], width: int):
        super().__init__()
        if len(set(codes)) < len(codes):
            raise ConfigError("a table of places has two rows of the same name")
        in_order, rows = torch.tensor(list(codes), dtype=torch.int64).sort()
        self.register_buffer("codes", in_order, persistent=False)
        self.register_buffer("rows_of", rows + 1, persistent=False)
        self.rows = nn.Embedding(len(codes) + 1, width)  # the first is of what is not known

    def forward(self, code: Tensor) -> Tensor:
        """Map codes (...) to rows (..., width)."""
        at = torch.searchsorted(self.codes, code.contiguous()).clamp_max(len(self.codes) - 1)
        known = self.codes[at] == code
        return self.rows(torch.where(known, self.rows_of[at], 0))


class CoordinateTables(nn.Module):
    """The sum of a learned row for each coordinate, after BaRISTA's places of single channels.

    Parameters
    ----------
    width : int
        Features of a row.
    n_rows : int
        Rows of each of three tables.
    reach_m : float
        Coordinates from minus this to this have rows of their own; those beyond share the last.
    """

    def __init__(self, width: int, n_rows: int = 200, reach_m: float = 0.1):
        super().__init__()
        self.n_rows, self.reach_m = n_rows, reach_m
        self.tables = nn.ModuleList(nn.Embedding(n_rows, width) for _ in range(3))
        for table in self.tables:
            nn.init.normal_(table.weight, std=3**-0.5)  # type: ignore[arg-type]

    def forward(self, position: Tensor) -> Tensor:
        """Map positions (..., 3) in metres to (..., width)."""
        share = (position.float() + self.reach_m) / (2 * self.reach_m)
        rows = (share * self.n_rows).floor().clamp(0, self.n_rows - 1).long()
        return torch.stack([table(rows[..., i]) for i, table in enumerate(self.tables)]).sum(0)
