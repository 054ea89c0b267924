/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A program that the verifier refuses: the error tells why, in one line as every message. */
#include "checks.h"
#include "kernel/bpf_program.h"

int main(void)
{
	/* returns what nobody has set */
	struct bpf_insn insns[] = {bpf_insn_of(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
		.insns = (uintptr_t)insns,
		.insn_cnt = 1,
		.license = (uintptr_t) "",
	};
	_cleanup_error_ struct cr_error *error = NULL;
	int fd;

	error = bpf_program_load(NULL, &attr, "test", &fd);
	if (CHECK(error)) {
		CHECK(strstr(error->message, "load the BPF test: "));
		CHECK(strstr(error->message, "; the verifier says: "));
		CHECK(strstr(error->message, "R0 !read_ok"));
		CHECK(!strchr(error->message, '\n'));
		CHECK(error->message[strlen(error->message) - 1] != '|');
	}
	return checks_done();
}
