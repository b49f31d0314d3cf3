"""Makes the golden files anew: `python tests/store/golden/make.py`. For a new format only.

Two segments of one writer (sealed; then torn in its last record), one of another, the Parquet file
that a compactor made of them, and the table's rows as JSON: ts in microseconds, NaN as text.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from store_rows import OTHER, decision, end, reward, segment_bytes, start, write_segment  # noqa: E402

from simtune.store import compact  # noqa: E402


def write_log(root):
    write_segment(root, [start("a", env="maze", metadata='{"seed":7}'), decision("a", 0)])
    torn = [
        decision(
            "a",
            1,
            prompt=[{"role": "tool", "content": None, "tool_call_id": "c1", "name": "grün"}],
            response="🙂 \u2028 end",
            logprobs=[float("nan"), -3.5],
            token_ids=[2**31 - 1, -(2**31)],
            extra='{"converted":{"parsed":"was set, as JSON"}}',
            error="ValueError: no",
            valid=False,
            reward=None,
        ),
        reward("0123456789abcdef-1", -0.25, "a"),
        end("a", 2, terminated=True, metadata='{"outcome":{"success":true},"aborted":false}'),
        decision("a", 9),
    ]
    path = write_segment(root, [], segno=1, first_seq=2)
    path.write_bytes(segment_bytes(torn, segno=1, first_seq=2, sealed=False)[:-5])
    bare = decision("b", prompt=None, prompt_token_ids=[], token_ids=[], logprobs=[], choices=[])
    bare.choice_logprobs, bare.sampling = [], None
    write_segment(root, [bare], writer=OTHER, first_seq=40)


def plain(table):
    """Rows as JSON has them."""
    position = table.schema.get_field_index("ts")
    counted = table.set_column(position, "ts", table["ts"].cast(pa.int64()))
    found = counted.to_pylist()
    for row in found:
        row["logprobs"] = ["NaN" if one != one else one for one in row["logprobs"]]
    return found


def main():
    for old in HERE.iterdir():
        if old.suffix in (".wal", ".parquet", ".json"):
            old.unlink()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_log(root)
        for segment in (root / "wal").iterdir():
            shutil.copy(segment, HERE)
        (part,) = compact(root).files
        shutil.copy(part, HERE)
        rows = json.dumps(plain(pq.read_table(part)), indent=1, ensure_ascii=False)
        (HERE / "rows.json").write_text(rows + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
