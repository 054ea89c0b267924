#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Runs as root in the virtual machine; its only argument is where the checkout lies. What is missing
# is installed by test.sh itself: that it can do so is part of what is tested.
set -eu

cd "$1"
uname -a
CR_MUST_RUN=1 ./test.sh
