#!/bin/sh
# Makes what compose.yaml needs beside it, where it is not there yet: .env with secrets of its own,
# deconvoy.env, and the users of Redis. Nothing that stands is changed.
set -eu
umask 077
cd "$(dirname "$0")"

secret() {
    od -A n -N 24 -t x1 /dev/urandom | tr -d ' \n'
}

if [ ! -e .env ]; then
    while IFS= read -r line; do
        case $line in
        *=change-me) line=${line%change-me}$(secret) ;;
        esac
        printf '%s\n' "$line"
    done <.env.example >.env.new
    mv .env.new .env
fi

if [ ! -e deconvoy.env ]; then
    cp deconvoy.env.example deconvoy.env
fi

# The server of Redis runs under a user of its own, who must be able to read this; it holds a hash alone.
if [ ! -e redis/users.acl ]; then
    password=$(sed -n 's/^REDIS_PASSWORD=//p' .env)
    hash=$(printf '%s' "$password" | sha256sum | cut -d ' ' -f 1)
    sed "s/CHANGE_ME/$hash/" redis/users.acl.example >redis/users.acl
    chmod 644 redis/users.acl
fi

# Containers read them as a user of their own too.
if [ ! -e photos ]; then
    mkdir -m 755 photos
fi
