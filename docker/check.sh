#!/bin/sh
# What `make docker-check` runs: what can be said about these files without a container engine.
set -eu
cd "$(dirname "$0")"
bin=${BIN:?the folder with the linters, such as .venv/bin}

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

say() {
    printf '%s\n' "$*" >&2
}

say "hadolint, shellcheck, yamllint"
"$bin/hadolint" Dockerfile
"$bin/shellcheck" ./*.sh
"$bin/yamllint" --strict --config-file .yamllint.yaml .

say "compose files"
"$bin/check-jsonschema" --builtin-schema vendor.compose-spec compose.yaml compose.gpu.yaml
cp -R . "$copy/docker"
(
    cd "$copy/docker"
    rm -f .env deconvoy.env redis/users.acl
    ./prepare.sh
    "$bin/docker-compose" config --quiet
    "$bin/docker-compose" --file compose.yaml --file compose.gpu.yaml config --quiet
)

say "Kubernetes manifests"
for manifest in kubernetes/base/*.yaml; do
    case $manifest in
    */kustomization.yaml) ;;
    *) "$bin/kubernetes-validate" --strict --quiet "$manifest" ;;
    esac
done
# The overlay is whole only when it is rendered.
if command -v kubectl >/dev/null; then
    for folder in base gpu; do
        kubectl kustomize "kubernetes/$folder" >"$copy/$folder.yaml"
        "$bin/kubernetes-validate" --strict --quiet --no-warn "$copy/$folder.yaml"
    done
else
    say "kubectl is not here: the overlay gpu is not rendered"
fi
