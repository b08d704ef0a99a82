from pathlib import Path

import pytest

from dataset_conversion.tables import read_table
from nnood.errors import UserError


def test_cells_by_column(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_bytes('\ufeffname,"size [x,y]",\r\n a ,"1,2",\r\n\r\nb\r\n"ä",3,,4\r\n'.encode())
    assert read_table(table, ("name",)) == [
        {"name": "a", "size [x,y]": "1,2", "": ""},
        {"name": "b", "size [x,y]": "", "": ""},
        {"name": "ä", "size [x,y]": "3", "": ""},
    ]
    table.write_text("name\tsize\na, b\t1\n")
    assert read_table(table, ("size", "name"), separator="\t") == [{"name": "a, b", "size": "1"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; give the folder in which the data set was unpacked"),
        (b"", r"lacks the column\(s\) name, size; replace"),
        (b"\n\n", r"lacks the column\(s\) name, size"),
        (b"name\na\n", r"lacks the column\(s\) size"),
        (b"name,size\n\n", "has a header only"),
        (b"name,size\n\xe4,1\n", "is no table in UTF-8"),
        (b"%PDF-1.4\n\x00\xff", "is no table in UTF-8"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    table = tmp_path / "a.csv"
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_table(table, ("name", "size"))
    assert str(table) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
