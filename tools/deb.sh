#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds Debian packages of this tree into a folder, without a packaging system of its own:
#   satchel-common    recipes and what all programs share
#   satchel-loader    pack, inspect, preview, keys, serve: needs no CUDA, MPI or oneDNN
#   satchel-trainer   train, predict, export, report; MPI and CUDA are modules that it opens when they can be
#   tools/deb.sh [FOLDER]     (default: dist)
set -eu
. "$(dirname "$0")/explain.sh"
cd "$(dirname "$0")/.."
out=${1:-dist}
tools/deps.sh --deb
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n "s/^ *version: '\([^']*\)'.*/\1/p" meson.build | head -1)
arch=$(dpkg --print-architecture)

meson setup "$work/build" . --buildtype=release --prefix=/usr -Dtests=false >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
ninja -C "$work/build" >"$work/log" 2>&1 || { tail -n 40 "$work/log" >&2; exit 1; }
DESTDIR=$work/all meson install -C "$work/build" --no-rebuild --strip >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

# take PACKAGE PATTERN...: moves files under usr/ (and lib/, etc/) into the package's tree.
take() {
    package=$1
    shift
    for pattern; do
        (cd "$work/all" && find . -path "./$pattern" \( -type f -o -type l \)) | while read -r file; do
            mkdir -p "$work/$package/$(dirname "$file")"
            mv "$work/all/$file" "$work/$package/$file"
        done
    done
}
# The library packages that a package's programs link to.
libraries() {
    mkdir -p "$work/debian"
    printf 'Source: satchel\n\nPackage: satchel\nArchitecture: any\n' >"$work/debian/control"
    (cd "$work" && find "$1/usr/bin" -type f -exec dpkg-shlibdeps -O --ignore-missing-info {} + 2>/dev/null) |
        sed -n 's/^shlibs:Depends=//p'
}
# The service's user; without systemd there is no service.
make_postinst() {
    cat >"$1" <<'EOF'
#!/bin/sh
set -e
if [ "$1" = configure ] && command -v systemd-sysusers >/dev/null; then
    systemd-sysusers satchel.conf
fi
EOF
    chmod 755 "$1"
}
# build PACKAGE SUMMARY DEPENDS [FIELD...]
build() {
    package=$1 summary=$2 depends=$3
    shift 3
    tree=$work/$package
    mkdir -p "$tree/DEBIAN" "$tree/usr/share/doc/$package"
    cp LICENSE "$tree/usr/share/doc/$package/copyright"
    find "$tree/usr/share/man" -type f -exec gzip -9n {} + 2>/dev/null || true
    {
        echo "Package: $package"
        echo "Version: $version"
        echo "Architecture: $arch"
        echo "Maintainer: the Satchel developers"
        echo "Section: science"
        echo "Priority: optional"
        [ -z "$depends" ] || echo "Depends: $depends"
        for field; do echo "$field"; done
        echo "Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)"
        echo "Description: $summary"
    } >"$tree/DEBIAN/control"
    [ -z "$(find "$tree" -path '*/sysusers.d/*' -type f)" ] || make_postinst "$tree/DEBIAN/postinst"
    dpkg-deb --root-owner-group --build "$tree" "$out/${package}_${version}_$arch.deb" >/dev/null
    echo "$out/${package}_${version}_$arch.deb: $(du -sk --exclude=DEBIAN "$tree" | cut -f1) KiB installed"
}

trainer='trainer predict export report bench-step'
for name in $trainer; do
    take satchel-trainer "usr/bin/satchel-$name" "usr/share/man/man1/satchel-$name.1" \
        "usr/share/bash-completion/completions/satchel-$name"
done
take satchel-trainer 'usr/lib/*/satchel/*'
take satchel-loader 'usr/bin/*' 'usr/share/man/*' 'usr/share/bash-completion/completions/satchel-*' '*systemd*' '*sysusers*'
take satchel-common '*'
same="satchel-common (= $version)"
build satchel-common 'recipes of the bag-of-tricks image classification trainer' ''
build satchel-loader 'packs image datasets and serves augmented training batches' "$same, $(libraries satchel-loader)"
build satchel-trainer 'trains image classifiers on batches from satchel-loader' "$same, $(libraries satchel-trainer)" \
    'Recommends: libopenmpi3' 'Suggests: openmpi-bin'
