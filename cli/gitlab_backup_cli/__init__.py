"""The command `gitlab-backup-cli`: the only part of this project that prints, parses arguments and ends a process."""
