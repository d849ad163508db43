from pathlib import Path

from vinegrape_cli.predict.files import find_files


def test_files_and_folders_in_order_and_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("leaves/b.png", "leaves/a.png", "leaves/c/d.png", "leaves/.hidden", "leaves/.git/x.png", "photo.png"):
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    Path("leaves/broken").symlink_to("none")
    found = list(find_files([Path("photo.png"), Path("leaves"), Path("leaves/a.png")]))
    assert found == ["photo.png", "leaves/a.png", "leaves/b.png", "leaves/c/d.png"]
    assert list(find_files([Path("leaves/.hidden")])) == ["leaves/.hidden"]
