/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bpf_program.h"

#include <fcntl.h>
#include <linux/btf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../cleanup.h"

#ifndef BPF_PSEUDO_KFUNC_CALL
#define BPF_PSEUDO_KFUNC_CALL 2 /* Linux 5.13 */
#endif

enum { VERIFIER_LOG_SIZE = 64 << 10, VERIFIER_LOG_TAIL = 600 };

static const char lockdown_file[] = "/sys/kernel/security/lockdown";

/* ---- reading by loads ---- */

/*
 * A function in place of bpf_probe_read_kernel(), for the same arguments. Any struct will do that
 * begins with a number of 8 bytes; the verifier lets us take any address for one, and a load from an
 * address that cannot be read gives zeros. What is asked for may lie across members of all sorts, of
 * which the true type would only let us have each by itself.
 */
#define CAST_STRUCT "pt_regs"

enum {
	TO = BPF_REG_6,
	LEFT = BPF_REG_7,
	FROM = BPF_REG_8,
	VALUE = BPF_REG_0,
	READER_MAX = 48,
};

struct reader {
	struct bpf_insn insns[READER_MAX];
	size_t count;
	uint32_t cast, type; /* ids: of the function, and of the struct */
};

static void emit(struct reader *code, unsigned int opcode, unsigned int dst, unsigned int src,
		 int offset, uint32_t value)
{
	code->insns[code->count++] = bpf_insn_of(opcode, dst, src, offset, (int32_t)value);
}

/* Copy @bytes, and go on with what comes behind them. */
static void emit_step(struct reader *code, unsigned int size, uint32_t bytes)
{
	emit(code, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_1, FROM, 0, 0);
	emit(code, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, code->type);
	emit(code, BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 0, code->cast);
	emit(code, BPF_LDX | BPF_MEM | size, VALUE, BPF_REG_0, 0, 0);
	emit(code, BPF_STX | BPF_MEM | size, TO, VALUE, 0, 0);
	emit(code, BPF_ALU64 | BPF_ADD | BPF_K, TO, 0, 0, bytes);
	emit(code, BPF_ALU64 | BPF_ADD | BPF_K, FROM, 0, 0, bytes);
	emit(code, BPF_ALU64 | BPF_SUB | BPF_K, LEFT, 0, 0, bytes);
}

static void assemble_reader(struct reader *code)
{
	static const struct {
		unsigned int size;
		uint32_t bytes;
	} steps[] = {{BPF_DW, 8}, {BPF_W, 4}, {BPF_H, 2}, {BPF_B, 1}};

	emit(code, BPF_ALU64 | BPF_MOV | BPF_X, TO, BPF_REG_1, 0, 0);
	emit(code, BPF_ALU64 | BPF_MOV | BPF_X, LEFT, BPF_REG_2, 0, 0);
	emit(code, BPF_ALU64 | BPF_MOV | BPF_X, FROM, BPF_REG_3, 0, 0);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		size_t start = code->count;

		emit(code, BPF_JMP | BPF_JLT | BPF_K, LEFT, 0, 0, steps[i].bytes);
		emit_step(code, steps[i].size, steps[i].bytes);
		if (steps[i].bytes == 8) {
			int back = (int)start - (int)code->count - 1;

			emit(code, BPF_JMP | BPF_JA, 0, 0, back, 0);
		}
		code->insns[start].off = (int16_t)(code->count - start - 1);
	}
	emit(code, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0);
	emit(code, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static bool is_probe(const struct bpf_insn *insn)
{
	return insn->code == (BPF_JMP | BPF_CALL) && !insn->src_reg &&
	       insn->imm == BPF_FUNC_probe_read_kernel;
}

/* The program with another callee, which stands behind it. NULL: this kernel knows no such cast. */
static struct bpf_insn *replace_probes(const struct btf *btf, const union bpf_attr *attr,
				       uint32_t *count)
{
	const struct bpf_insn *insns = (const void *)(uintptr_t)attr->insns;
	struct reader reader = {
		.cast = btf_find(btf, BTF_KIND_FUNC, "bpf_rdonly_cast"),
		.type = btf_find(btf, BTF_KIND_STRUCT, CAST_STRUCT),
	};
	struct bpf_insn *copy;

	if (!reader.cast || !reader.type)
		return NULL;
	assemble_reader(&reader);
	*count = attr->insn_cnt + (uint32_t)reader.count;
	copy = calloc(*count, sizeof(*copy));
	if (!copy)
		return NULL;
	memcpy(copy, insns, attr->insn_cnt * sizeof(*copy));
	memcpy(copy + attr->insn_cnt, reader.insns, reader.count * sizeof(*copy));
	for (uint32_t i = 0; i < attr->insn_cnt; i++) {
		if (!is_probe(&copy[i]))
			continue;
		copy[i].src_reg = BPF_PSEUDO_CALL;
		copy[i].imm = (int32_t)(attr->insn_cnt - i - 1);
	}
	return copy;
}

/* ---- loading ---- */

int bpf_program_try(union bpf_attr *attr)
{
	/* The verifier gives up with EAGAIN when a signal comes in, whatever the signal. */
	for (int tries = 0;; tries++) {
		int fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, attr, sizeof(*attr));

		if (fd >= 0 || errno != EAGAIN || tries == 4)
			return fd;
	}
}

static int load_with_casts(const struct btf *btf, const union bpf_attr *attr)
{
	_cleanup_free_ struct bpf_insn *insns = NULL;
	union bpf_attr other = *attr;

	insns = replace_probes(btf, attr, &other.insn_cnt);
	if (!insns) {
		errno = EINVAL;
		return -1;
	}
	other.insns = (uintptr_t)insns;
	return bpf_program_try(&other);
}

static bool is_confidential(void)
{
	_cleanup_close_ int fd = open(lockdown_file, O_RDONLY | O_CLOEXEC);
	char text[64] = {0};

	return fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && strstr(text, "[confidentiality]");
}

/* The end of a log in one line, as a message is; its ends of lines become bars. */
static const char *in_one_line(char *log)
{
	size_t length = strlen(log);
	char *tail;

	while (length && log[length - 1] == '\n')
		log[--length] = 0;
	tail = length > VERIFIER_LOG_TAIL ? log + length - VERIFIER_LOG_TAIL : log;
	for (char *at = tail; (at = strchr(at, '\n'));)
		*at = '|';
	return tail;
}

/* Why the verifier refuses can only be had by asking it again with a log. */
static struct cr_error *explain_refusal(union bpf_attr *attr, const char *what, int errnum)
{
	_cleanup_free_ char *log = calloc(1, VERIFIER_LOG_SIZE);
	const char *said;
	int fd;

	if (!log)
		return error_nomem();
	if (errnum == EINVAL && is_confidential())
		return error_remedy(
			error_new(CR_HOST,
				  "Failed to load the BPF %s: kernel lockdown is "
				  "\"confidentiality\", and this kernel has no way then to read "
				  "its memory",
				  what),
			"Boot with lockdown=integrity or without it, or Linux 6.2 or newer");
	attr->log_buf = (uintptr_t)log;
	attr->log_size = VERIFIER_LOG_SIZE - 1;
	attr->log_level = 1;
	fd = bpf_program_try(attr);
	if (fd >= 0)
		close(fd);
	said = in_one_line(log);
	return error_remedy(error_new(CR_HOST, "Failed to load the BPF %s: %s%s%s", what,
				      strerror(errnum), *said ? "; the verifier says: " : "", said),
			    "Boot Linux 6.1 or newer, built with CONFIG_BPF_SYSCALL=y; run as root "
			    "with CAP_BPF and CAP_PERFMON, where nothing forbids bpf(2) (a seccomp "
			    "filter, a container around)");
}

struct cr_error *bpf_program_load(const struct btf *btf, union bpf_attr *attr, const char *what,
				  int *ret)
{
	bool forbidden = btf && btf_is_without_probes(btf);
	int errnum;

	*ret = forbidden ? -1 : bpf_program_try(attr);
	errnum = forbidden ? EINVAL : errno;
	/* what the verifier says when a helper is not to be had */
	if (*ret < 0 && errnum == EINVAL && btf)
		*ret = load_with_casts(btf, attr);
	return *ret < 0 ? explain_refusal(attr, what, errnum) : NULL;
}
