# Completion of gitlab-backup-cli for fish. The command itself says what can come next; without an answer, files are offered.

function __gitlab_backup_cli
    set -l token (commandline -ct)
    set -l found (
        env _GITLAB_BACKUP_CLI_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
            _TYPER_COMPLETE_ARGS=(commandline -cp) gitlab-backup-cli 2>/dev/null
    )
    if test -n "$found"
        # Of --skip=db, fish wants all, and the command knows what is after the sign.
        set -l before (string match -r -- '^--[^=]+=' $token)
        printf '%s\n' "$before"$found
    else
        __fish_complete_path $token
    end
end

complete --command gitlab-backup-cli --no-files --arguments '(__gitlab_backup_cli)'
