#!/bin/sh
# Calls the compiler for a crate of the workspace with the flag in PROFILE_FLAG (`make wheel PGO=1`), but not for build scripts.
#
# Cargo makes the names of functions from the path of this program, among others. So that the counts of the first build are found in the
# second one, both call it, with different flags.
case " $* " in
  *" --crate-name build_script_"* | *" --print "*) exec "$@" ;;
esac
exec "$@" ${PROFILE_FLAG:+"$PROFILE_FLAG"}
