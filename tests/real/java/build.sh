#!/bin/sh
# Stands for a build tool: goals, a repository of downloaded libraries in $REPO, an output directory.
set -eu
repo=${REPO:-/root/.m2}
for goal in "$@"; do
  case $goal in
  go-offline)
    mkdir -p "$repo"
    cp -n /usr/share/java/gson.jar "$repo/" || true
    ;;
  compile)
    mkdir -p target/classes
    javac -cp "$repo/gson.jar" -d target/classes src/*.java
    ;;
  test) java -cp "target/classes:$repo/gson.jar" AppTest ;;
  package)
    mkdir -p target/lib
    cp "$repo/gson.jar" target/lib/
    printf 'Main-Class: App\nClass-Path: lib/gson.jar\n' >target/manifest
    jar --create --file target/app.jar --manifest target/manifest -C target/classes .
    (cd target && jar --create --no-manifest --file bundle.jar app.jar lib)
    ;;
  extract) (cd target && mkdir -p extracted && cd extracted && jar xf ../bundle.jar) ;;
  esac
done
