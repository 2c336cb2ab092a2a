"""A double of the program gitaly-backup: the contract of several versions, byte by byte, on repositories of this disk.

Run as `gitaly_backup.py CONFIGURATION ARGUMENT…`, by a wrapper that `install` writes. What does not fit the contract
ends it with `EXIT_CONTRACT`, which the real one never uses. It writes with plain git what the real one has Gitaly do.
"""

# ruff: noqa: T201 - it is a program
from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, NoReturn

EXIT_CONTRACT = 97

GIT_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "LC_ALL": "C",
}


def install(directory: Path, configuration: dict[str, Any]) -> Path:
    """Make `directory` hold a program gitaly-backup with this configuration, and return the program.

    `version`; `storages`: the directory of each; `servers`: what `GITALY_SERVERS` must say; `record`: a file that gets
    a line for each run; `faults`: see `Double.fault`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "configuration.json").write_text(json.dumps(configuration))
    program = directory / "gitaly-backup"
    program.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -S -E "{Path(__file__).resolve()}" "{directory}/configuration.json" "$@"\n'
    )
    program.chmod(0o755)
    return program


def breach(what: str) -> NoReturn:
    """End, as the contract was broken."""
    print(json.dumps({"level": "error", "msg": f"contract: {what}"}), flush=True)
    sys.exit(EXIT_CONTRACT)


class FailedError(Exception):
    """One repository failed."""


class SkippedError(Exception):
    """One repository was skipped."""


class Double:
    """One run."""

    def __init__(self, configuration: dict[str, Any], arguments: list[str]) -> None:
        self.storages = {name: Path(path) for name, path in configuration["storages"].items()}
        self.servers = configuration["servers"]
        self.faults = configuration.get("faults", {})
        self.version = tuple(int(part) for part in configuration["version"].split("."))
        self.version_text = configuration["version"]
        self.arguments = arguments
        self.command = arguments[0]
        self.flags: dict[str, str] = {}
        self.failures: list[str] = []
        self.done: set[tuple[str, str]] = set()

    # arguments, environment, stdin

    def usage(self, what: str) -> NoReturn:
        print(f"Incorrect Usage: {what}\n\nNAME:\n   gitaly-backup {self.command}", flush=True)
        sys.exit(1)

    def parse(self) -> None:
        if self.command not in {"create", "restore"}:
            breach(f"no such command: {self.command}")
        with_value = {"path", "parallel", "parallel-storage", "id"}
        if self.version < (19,):
            with_value.add("layout")
        if self.command == "restore":
            with_value.add("remove-all-repositories")
        switches = {"server-side"} | ({"incremental"} if self.command == "create" else set())
        rest = self.arguments[1:]
        while rest:
            flag = rest.pop(0)
            name = flag.lstrip("-")
            if not flag.startswith("-") or name not in with_value | switches:
                self.usage(f"flag provided but not defined: {flag}")
            if name in self.flags:
                breach(f"{flag} is given twice")
            if name in with_value and not rest:
                self.usage(f"flag needs an argument: {flag}")
            self.flags[name] = rest.pop(0) if name in with_value else "true"

    def check_flags(self) -> None:
        if "layout" in self.flags:
            breach("-layout is not to be passed from 16.10 on")
        if "id" not in self.flags or not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_.+~-]*", self.flags["id"]):
            breach("-id must be passed always")
        for name in ("parallel", "parallel-storage"):
            if int(self.flags.get(name, "0")) < 1:
                breach(f"-{name} must be passed")
        if ("path" in self.flags) == ("server-side" in self.flags):
            breach("either -path or -server-side")
        if "path" in self.flags and not os.path.isabs(self.flags["path"]):  # noqa: PTH117
            breach("-path must be absolute")

    def check_environment(self) -> None:
        allowed = {"PATH", "HOME", "LC_ALL", "TZ", "GITALY_SERVERS", "SSL_CERT_FILE", "SSL_CERT_DIR"}
        # What the shell of the wrapper adds.
        if extra := set(os.environ) - allowed - {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}:
            breach(f"the environment has {sorted(extra)}")
        try:
            servers = json.loads(base64.b64decode(os.environ["GITALY_SERVERS"], validate=True))
        except (KeyError, ValueError) as error:
            breach(f"GITALY_SERVERS: {error}")
        if servers != self.servers:
            breach("GITALY_SERVERS does not say what it should")
        tokens = [server["token"] for server in self.servers.values() if server["token"]]
        seen = [*sys.argv, *(value for name, value in os.environ.items() if name != "GITALY_SERVERS")]
        if any(token in text for token in tokens for text in seen):
            breach("a token is where it must not be")

    def requests(self) -> list[dict[str, Any]] | Any:
        for number, line in enumerate(sys.stdin.buffer):
            if self.faults.get("stop_reading_after") == number:
                sys.stdin.close()
                os.close(0)
                return
            try:
                request = json.loads(line)
            except ValueError:
                self.log("error", f"{self.command}: unexpected EOF")
                sys.exit(1)
            types = {"storage_name": str, "relative_path": str, "gl_project_path": str, "always_create": bool}
            if {key: type(value) for key, value in request.items()} != types:
                breach(f"stdin: {line!r}")
            if not line.endswith(b"}\n") or line.count(b"\n") != 1:
                breach(f"not one object a line: {line!r}")
            yield request

    # log

    def log(self, level: str, msg: str, **more: str) -> None:
        entry = {"level": level, "msg": msg, "pid": os.getpid(), "time": "2024-05-16T08:00:00.000Z", **more}
        print(json.dumps(entry, sort_keys=True, separators=(",", ":")), flush=True)

    def about(self, level: str, msg: str, request: dict[str, Any], **more: str) -> None:
        key = "command.name" if self.version >= (17, 10) else "command"
        fields = {name: request[name] for name in ("storage_name", "relative_path", "gl_project_path")}
        self.log(level, msg, **{key: self.command}, **fields, **more)

    # the run

    def fault(self, path: str) -> None:
        """Do what is to go wrong at a repository."""
        at = self.faults.get("at", {}).get(path)
        if at == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif at == "hang":
            Path(self.faults["flag"]).open("wb").close()  # a pipe: this waits for its reader
            time.sleep(600)
        elif at == "garbage":
            sys.stdout.buffer.write(b'\xff\x00 not JSON\n[1, 2]\n{"msg": 5}\n' + b"[" * 100_000 + b"\n\n{}\n")
            sys.stdout.buffer.write(b"x" * (10 << 20) + b"\n")
        elif at == "flood":
            for _ in range(20_000):
                print('{"level":"warning","msg":"failed to list repositories"}')
        elif at == "fail":
            raise FailedError("rpc error: code = Unavailable desc = token is " + self.faults.get("leak", "unknown"))

    def one(self, request: dict[str, Any]) -> None:
        storage, path = request["storage_name"], request["relative_path"]
        if self.faults.get("at", {}).get(path) == "silent":
            return
        self.about("info", f"started {self.command}", request)
        try:
            self.fault(path)
            self.create(storage, path) if self.command == "create" else self.restore(storage, path)
        except SkippedError as error:
            self.about("warning", f"skipped {self.command}", request, error=str(error))
        except (FailedError, KeyError, OSError) as error:
            # A KeyError is a storage that is not known.
            self.failures.append(f" - {path} ({request['gl_project_path']}): {error}\n")
            self.about("error", f"{self.command} failed", request, error=str(error))
        else:
            self.about("info", f"completed {self.command}", request)
        self.done.add((storage, path))

    def run(self) -> int:
        for request in self.requests():
            self.one(request)
        sys.stdout.flush()
        if self.failures:
            summary = f"{len(self.failures)} failures encountered:\n{''.join(self.failures)}"
            self.log("error", f"{self.command}: pipeline: {summary}")
            return 1
        if "status" in self.faults:
            self.log("error", f"{self.command}: the end is near")
            return int(self.faults["status"])
        if names := self.flags.get("remove-all-repositories"):
            for name in names.split(","):
                self.remove_dangling(name)
        if self.command == "create" and self.version >= (18, 11) and self.done and "path" in self.flags:
            self.write(f"backup_ids/{self.flags['id']}", b"")
        return 0

    # files

    @property
    def root(self) -> Path:
        return Path(self.flags["path"])

    def write(self, name: str, data: bytes) -> None:
        modern = self.version >= (17,)
        path = self.root / name
        os.umask(0)
        for parent in reversed(path.relative_to(self.root).parents):
            (self.root / parent).mkdir(mode=0o755 if modern else 0o700, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o644 if modern else 0o600)
        if self.version[:2] == (17, 0):
            attributes = {"user.cache_control": "no-store, no-transform", "md5": "AAAA"}
            path.with_name(f"{path.name}.attrs").write_text(json.dumps(attributes))

    @staticmethod
    def git(repository: Path, *arguments: str, ok: tuple[int, ...] = (0,), stdin: bytes = b"") -> bytes:
        done = subprocess.run(
            ["/usr/bin/env", "git", f"--git-dir={repository}", *arguments],
            input=stdin,
            capture_output=True,
            env=GIT_ENVIRONMENT,
            check=False,
        )
        if done.returncode not in ok:
            raise FailedError(done.stderr.decode(errors="replace").strip())
        return done.stdout

    # create

    def create(self, storage: str, path: str) -> None:
        repository = self.storages[storage] / path
        exists = repository.is_dir()
        if not exists and self.version < (17, 6):
            raise SkippedError("repository not found")
        if "server-side" in self.flags:
            return
        if "incremental" not in self.flags and (self.root / storage / path).exists():
            breach(f"something of {path} is there before a full backup")
        base = self.base(storage, path) if "incremental" in self.flags else None
        before = base["steps"] if base else []
        stem = f"{storage}/{path}/{self.flags['id']}/{len(before) + 1:03}"
        if not exists:
            self.write_manifest(storage, path, stem, "", None, empty=True, non_existent=True)
            return
        self.check(repository)
        if base and self.faults.get("at", {}).get(path) == "no increment":
            raise FailedError("rpc error: code = Internal desc = create bundle: broken")
        head = self.git(repository, "symbolic-ref", "HEAD").decode().strip()
        refs = self.git(repository, "show-ref", "--head", ok=(0, 1))
        self.write(f"{stem}.refs", refs)
        if self.faults.get("at", {}).get(path) == "half":
            raise FailedError("rpc error: code = Internal desc = create bundle: broken")
        object_format = self.git(repository, "rev-parse", "--show-object-format").decode().strip()
        if refs:
            self.write(f"{stem}.bundle", self.bundle(repository, before, object_format))
        self.hooks(repository, stem)
        # The mark of the base is carried over: a defect of the real one.
        empty = bool(base["empty"]) if base and "empty" in base else not refs
        if self.faults.get("at", {}).get(path) != "no manifest":
            self.write_manifest(storage, path, stem, object_format, head, *before, empty=empty, non_existent=False)

    def hooks(self, repository: Path, stem: str) -> None:
        if (repository / "custom_hooks").is_dir():
            hooks = subprocess.run(
                ["/usr/bin/env", "tar", "-C", str(repository), "-cf", "-", "custom_hooks"],
                capture_output=True,
                check=True,
            )
            self.write(f"{stem}.custom_hooks.tar", hooks.stdout)

    @staticmethod
    def check(repository: Path) -> None:
        for part in ("objects", "refs", "HEAD"):
            if not (repository / part).exists():
                raise FailedError(f'rpc error: code = FailedPrecondition desc = repository not valid: "{part}"')

    def base(self, storage: str, path: str) -> dict[str, Any] | None:
        """Return the manifest to build on. All that it names must be there."""
        if self.version < (17, 3):
            breach("-incremental leaves out what has not changed, before 17.3")
        manifests = self.root / "manifests" / storage / path
        if self.version < (18, 11):
            found = [manifests / "+latest.toml"] if (manifests / "+latest.toml").exists() else []
        else:
            found = sorted(manifests.glob("*.toml"), key=lambda file: (file.stat().st_mtime_ns, file.name))
        if not found:
            return None
        if found[-1].stat().st_nlink != 1:
            breach(f"{found[-1]} is another backup's as well, and may be written to")
        manifest = tomllib.loads(found[-1].read_text())
        if manifest.get("non_existent"):
            raise FailedError(f"{manifest['steps'][-1]['ref_path']}: doesn't exist")
        for step in manifest["steps"]:
            if not (self.root / step["ref_path"]).exists():
                breach(f"{step['ref_path']} is missing in the base")
            if (self.root / step["ref_path"]).stat().st_size and not (self.root / step["bundle_path"]).exists():
                breach(f"{step['bundle_path']} is missing in the base")
        return manifest

    def bundle(self, repository: Path, before: list[dict[str, str]], object_format: str) -> bytes:
        """Return a bundle of all that the last of the steps before does not lead to."""
        create = ("bundle", "create", "--quiet", "-", "--all")
        if not before:
            return self.git(repository, *create)
        lines = (self.root / before[-1]["ref_path"]).read_bytes().splitlines()
        known = b"".join(b"^%s\n" % line.split(b" ")[0] for line in lines)
        try:
            return self.git(repository, *create, "--ignore-missing", "--stdin", stdin=known)
        except FailedError as error:
            if "Refusing to create empty bundle" not in str(error):
                raise
            sha256 = b"# v3 git bundle\n@object-format=sha256\n\n"
            return b"# v2 git bundle\n\n" if object_format == "sha1" else sha256

    def write_manifest(
        self,
        storage: str,
        path: str,
        stem: str,
        object_format: str,
        head: str | None,
        *before: dict[str, str],
        **marks: bool,
    ) -> None:
        lines = []
        if self.version >= (17, 6):
            lines += [f"{name} = {str(mark).lower()}" for name, mark in marks.items()]
        lines.append(f"object_format = '{object_format}'")
        if head:
            lines.append(f"head_reference = '{head}'")
        step = {"bundle_path": f"{stem}.bundle", "ref_path": f"{stem}.refs"}
        if before:
            step["previous_ref_path"] = before[-1]["ref_path"]
        for each in [*before, {**step, "custom_hooks_path": f"{stem}.custom_hooks.tar"}]:
            lines += ["", "[[steps]]", *(f"{key} = '{value}'" for key, value in each.items())]
        for name in (self.flags["id"], "+latest"):
            self.write(f"manifests/{storage}/{path}/{name}.toml", "\n".join([*lines, ""]).encode())

    # restore

    def restore(self, storage: str, path: str) -> None:
        if "server-side" in self.flags:
            return
        target = self.storages[storage] / path
        manifest_path = self.root / "manifests" / storage / path / f"{self.flags['id']}.toml"
        if not manifest_path.exists():
            if self.version < (17, 6):
                raise SkippedError("manifest: doesn't exist")
            raise FailedError("read manifest: doesn't exist")
        manifest = tomllib.loads(manifest_path.read_text())
        if manifest.get("non_existent"):
            return
        shutil.rmtree(target, ignore_errors=True)
        branch = manifest.get("head_reference", "refs/heads/main").removeprefix("refs/heads/")
        target.parent.mkdir(parents=True, exist_ok=True)
        self.git(
            target,
            "init", "--bare", "--quiet", "--template=",
            f"--object-format={manifest['object_format']}", f"--initial-branch={branch}",
        )  # fmt: skip
        for step in manifest["steps"]:
            if manifest.get("empty") or not (self.root / step["ref_path"]).read_bytes():
                continue
            bundle = str(self.root / step["bundle_path"])
            self.git(target, "fetch", "--quiet", "--no-auto-gc", bundle, "+refs/*:refs/*")
        if self.version >= (18, 3):
            self.reconcile(target, (self.root / manifest["steps"][-1]["ref_path"]).read_bytes())
        hooks = self.root / manifest["steps"][-1]["custom_hooks_path"]
        if hooks.exists():
            subprocess.run(["/usr/bin/env", "tar", "-C", str(target), "-xf", str(hooks)], check=True)

    def reconcile(self, target: Path, refs: bytes) -> None:
        """Make the refs those of a list."""
        wanted = [line.split(b" ", 1) for line in refs.splitlines() if not line.endswith(b" HEAD")]
        names = {name for _, name in wanted}
        there = self.git(target, "for-each-ref", "--format=%(refname)").splitlines()
        lines = [b"delete %s\n" % name for name in there if name not in names]
        lines += [b"update %s %s\n" % (name, oid) for oid, name in wanted]
        self.git(target, "update-ref", "--stdin", stdin=b"".join(lines))

    def remove_dangling(self, storage: str) -> None:
        root = self.storages[storage]
        for head in sorted(root.rglob("HEAD")):
            repository = head.parent
            path = str(repository.relative_to(root))
            if not (repository / "objects").is_dir() or path.startswith("+gitaly"):
                continue
            if path.startswith("@pools/") and self.version >= (17, 3):
                continue
            if (storage, path) not in self.done:
                shutil.rmtree(repository)


def main() -> int:
    """Do as the arguments say."""
    configuration = json.loads(Path(sys.argv[1]).read_text())
    arguments = sys.argv[2:]
    if arguments == ["--version"]:
        if "GITALY_SERVERS" in os.environ:
            breach("--version needs no tokens")
        print(f"Gitaly Backup, version {configuration['version']}")
        return 0
    with Path(configuration["record"]).open("a") as record:
        proc = Path(f"/proc/{os.getpid()}/cmdline").read_bytes().decode()
        ssl = {name: value for name, value in os.environ.items() if name.startswith("SSL_")}
        record.write(json.dumps({"arguments": arguments, "cmdline": proc, "pid": os.getpid(), "ssl": ssl}) + "\n")
    double = Double(configuration, arguments)
    double.parse()
    double.check_flags()
    double.check_environment()
    return double.run()


if __name__ == "__main__":
    sys.exit(main())
