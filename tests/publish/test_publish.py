# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the project says about itself agrees everywhere, and a release writes the addresses that it is given."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]


def load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


importer, release = load("importer"), load("release")


def read(file):
    return (CHECKOUT / file).read_text(encoding="utf-8")


def settings(file):
    return yaml.safe_load(read(file))


# -- one fact, one value --------------------------------------------------------------------------------------------


def ansibles():
    return [
        line.split()[0] for line in read("tests/requirements/ansibles.txt").splitlines() if not line.startswith("#")
    ]


def test_what_playbooks_write_in_a_checkout_is_not_published():
    """A report has the names of nodes. Neither a commit nor the artefact takes it."""
    (report,) = re.findall(r"wcow_report \| default\('(.+?)'\)", read("playbooks/audit.yml"))
    written = {report, settings("roles/support/defaults/main.yml")["support_dest"]}
    assert written <= set(settings("galaxy.yml")["build_ignore"])
    assert {f"/{name}/" for name in written} <= set(read(".gitignore").splitlines())


def test_all_files_promise_the_same_releases_of_ansible_core():
    versions = ansibles()
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    minors = [f"{major}.{minor}" for major, minor, _patch in numbers]
    assert numbers == sorted(numbers)
    assert minors == [f"2.{minor}" for minor in range(numbers[0][1], numbers[-1][1] + 1)]
    assert f"ansible-core {minors[0]} to {minors[-1]} " in read("README.md")
    # No upper bound: a newer release is untested, not refused.
    assert settings("meta/runtime.yml")["requires_ansible"] == f">={minors[0]}.0"
    for role in CHECKOUT.glob("roles/*/meta/main.yml"):
        assert yaml.safe_load(role.read_text())["galaxy_info"]["min_ansible_version"] == minors[0]
    assert f"ansible-core>={minors[0]}\n" in read("docs/fleet.md")
    assert set(re.findall(r"^ansible-core==(.+?);", read("tests/requirements/demo.txt"), re.MULTILINE)) <= set(versions)


def test_everything_has_the_same_author():
    (author,) = settings("galaxy.yml")["authors"]
    # ansible-doc shows a name with an account in parentheses. Ansible's sanity tests accept this one for no account.
    assert re.fullmatch(r"[^()]+ \((?:@[\w-]+|!UNKNOWN)\)", author)
    plugins = [*CHECKOUT.glob("plugins/modules/*.py"), *CHECKOUT.glob("plugins/callback/*.py")]
    for plugin in plugins:
        documentation = re.search(r'DOCUMENTATION = r"""\n(.*?)"""', plugin.read_text(), re.DOTALL)
        assert yaml.safe_load(documentation[1])["author"] == [author], plugin
    for role in CHECKOUT.glob("roles/*/meta/main.yml"):
        assert yaml.safe_load(role.read_text())["galaxy_info"]["author"] == author, role
    for role in CHECKOUT.glob("roles/*/meta/argument_specs.yml"):
        assert yaml.safe_load(role.read_text())["argument_specs"]["main"]["author"] == [author], role


def test_the_lab_needs_what_its_tests_use():
    """``lab/requirements.txt`` is for users, ``demo.txt`` for tests: the same packages, the tested version first."""
    connections, ours = (
        dict(re.findall(r"^([a-z]+)>=([\d.]+)", read(file), re.MULTILINE))
        for file in ("requirements.txt", "lab/requirements.txt")
    )
    tested = dict(re.findall(r"^([a-z-]+)==([\d.]+)", read("tests/requirements/demo.txt"), re.MULTILINE))
    del tested["ansible-core"]
    assert connections.keys() <= tested.keys()
    assert ours == {name: version for name, version in tested.items() if name not in connections}


def test_the_guides_of_the_site_show_what_the_tested_pages_show():
    pages = [CHECKOUT / "README.md", *CHECKOUT.glob("docs/*.md")]
    tested = {line.strip() for page in pages for line in page.read_text(encoding="utf-8").splitlines()}
    for guide in CHECKOUT.glob("docs/docsite/rst/*.rst"):
        for block in re.findall(r"^\.\. code-block:: \w+\n((?:\n|   .*\n)+)", guide.read_text(), re.MULTILINE):
            assert {line.strip() for line in block.splitlines()} <= tested, guide


#: The playbook that the others import gets its tags from them.
PLAYBOOKS = [path for path in sorted(CHECKOUT.glob("playbooks/*.yml")) if path.stem != "selection"]


def tags_in(value):
    """Yield all tags in a playbook."""
    if isinstance(value, dict):
        tags = value.get("tags", [])
        yield from [tags] if isinstance(tags, str) else tags
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from tags_in(inner)


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda playbook: playbook.stem)
def test_the_comment_of_a_playbook_names_its_tags(playbook):
    text = playbook.read_text()
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    named = {tag for tag in tags_in(yaml.safe_load(text)) if re.search(rf"\btags?\b[^.]*\b{tag}\b", comment)}
    assert set(tags_in(yaml.safe_load(text))) - named <= {playbook.stem}


def test_each_role_of_a_playbook_can_be_selected():
    """If a playbook runs several roles, each has its name as a tag. The verdict comes with each of these tags."""
    for playbook in PLAYBOOKS:
        *_selection, play = yaml.safe_load(playbook.read_text())
        blocks = [task["block"] for task in play["tasks"] if "block" in task]
        roles = [task for block in blocks for task in block if "ansible.builtin.import_role" in task]
        if len(roles) > 1:
            names = [task["ansible.builtin.import_role"]["name"].rpartition(".")[2] for task in roles]
            assert [task["tags"] for task in roles] == names, playbook
            assert set(names) < set(play["tasks"][-1]["tags"]), playbook


def test_each_playbook_has_its_name_as_a_tag():
    for playbook in PLAYBOOKS:
        # With it, each task of the playbook runs, also the selection of the nodes ahead and the verdict at the end.
        for play in yaml.safe_load(playbook.read_text()):
            assert playbook.stem in (play["tags"] if isinstance(play["tags"], list) else [play["tags"]]), playbook


# -- a release ------------------------------------------------------------------------------------------------------

ADDRESSES = ["--repository", "https://example.invalid/wcow/", "--version", "3.2.1"]


@pytest.fixture
def tree(tmp_path):
    """A committed work tree with the files that a release changes."""
    for name in ("galaxy.yml", "README.md", "SECURITY.md", "changelogs/changelog.yaml", "docs/fleet.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / name, tmp_path / name)
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "Begin"]):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
        subprocess.run(["git", "-C", tmp_path, *identity, *command], check=True)
    return tmp_path


def test_a_release_writes_what_it_is_given(tree):
    before = settings("galaxy.yml")
    assert release.main(["--tree", str(tree), *ADDRESSES, "--contact", "security@example.invalid"]) == 0
    after = yaml.safe_load((tree / "galaxy.yml").read_text())
    assert after == {
        **before,
        "version": "3.2.1",
        "repository": "https://example.invalid/wcow/",
        "issues": "https://example.invalid/wcow/issues",
        "documentation": "https://example.invalid/wcow",
    }
    assert "<security@example.invalid>" in (tree / "SECURITY.md").read_text()
    assert "wcow-snapshotter-3.2.1.tar.gz" in (tree / "README.md").read_text()
    assert "wcow-snapshotter-3.2.1.tar.gz" in (tree / "docs/fleet.md").read_text()


def test_the_next_release_replaces_the_addresses(tree):
    for number in (1, 2):
        texts = ["--issues", f"https://example.invalid/{number}", "--contact", f"https://example.invalid/c{number}"]
        assert release.main(["--tree", str(tree), *ADDRESSES[:2], "--version", f"9.0.{number}", *texts]) == 0
        subprocess.run(
            ["git", "-c", "user.name=test", "-c", "user.email=test@example.invalid", "commit", "-qam", "Release"],
            cwd=tree,
            check=True,
        )
    galaxy = (tree / "galaxy.yml").read_text()
    assert galaxy.count("issues: ") == 1
    assert "issues: https://example.invalid/2\n" in galaxy
    policy = (tree / "SECURITY.md").read_text()
    assert "example.invalid/c2>" in policy
    assert "example.invalid/c1>" not in policy


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--repository", "http://example.invalid/a"], "REPOSITORY must be an https URL"),
        (["--repository", "https://example.invalid/a b"], "REPOSITORY must be an https URL"),
        (["--version", "1.0"], "VERSION must be a semantic version"),
        (["--version", "v1.0.0"], "VERSION must be a semantic version"),
        (["--contact", "the maintainers"], "CONTACT must be an e-mail address or an https URL"),
        (["--issues", "none"], "ISSUES must be an https URL"),
    ],
)
def test_a_release_refuses_what_is_not_an_address(tree, capsys, wrong, message):
    assert release.main(["--tree", str(tree), *ADDRESSES, *wrong]) == 1
    assert message in capsys.readouterr().err
    assert (tree / "galaxy.yml").read_text() == read("galaxy.yml")


def test_a_release_refuses_changes_and_versions_that_are_there(tree, capsys):
    (tree / "new").touch()
    assert release.main(["--tree", str(tree), *ADDRESSES]) == 1
    assert "changes that are not committed:\n?? new" in capsys.readouterr().err
    (tree / "new").unlink()
    (tree / "changelogs/changelog.yaml").write_text("ancestor: null\nreleases: {3.2.1: {}}\n")
    assert release.main(["--tree", str(tree), *ADDRESSES]) == 1
    assert "the changelog already has 3.2.1" in capsys.readouterr().err


# -- the importer ---------------------------------------------------------------------------------------------------


def artefact(directory, **info):
    """Write an artefact that has a manifest only."""
    manifest = {"collection_info": {"namespace": "wcow", "name": "snapshotter", "version": "1.0.0", **info}}
    path = directory / "wcow-snapshotter-1.0.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        data = json.dumps(manifest).encode()
        entry = tarfile.TarInfo("MANIFEST.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return path


def test_what_the_importer_rejects_is_a_failure(tmp_path, capsys):
    assert importer.main([str(artefact(tmp_path))]) == 1
    output = capsys.readouterr()
    assert "galaxy-importer: rejected: " in output.err
    assert "wcow-snapshotter-1.0.0.tar.gz is rejected" in output.out


def test_the_copy_has_the_repository(tmp_path):
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy/wcow-snapshotter-1.0.0.tar.gz"
    importer.with_repository(artefact(tmp_path), "https://example.invalid/", copy)
    with tarfile.open(copy) as archive:
        manifest = json.load(archive.extractfile("MANIFEST.json"))
    assert manifest["collection_info"]["repository"] == "https://example.invalid/"
