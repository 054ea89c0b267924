/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <inttypes.h>

#include "../cleanup.h"
#include "record_field.h"

static const char *type_name(enum field_type type)
{
	switch (type) {
	case FIELD_TYPE_END: break;
	case FIELD_TYPE_UINT: return "uint";
	case FIELD_TYPE_INT: return "int";
	case FIELD_TYPE_BOOL: return "bool";
	case FIELD_TYPE_BYTES: return "bytes";
	case FIELD_TYPE_PATH: return "path";
	case FIELD_TYPE_TEXT: return "text";
	case FIELD_TYPE_LIST: return "list";
	case FIELD_TYPE_ROWS: return "rows";
	case FIELD_TYPE_STRUCT: return "struct";
	}
	return "unknown";
}

static void print_string(FILE *out, const char *text)
{
	putc('"', out);
	for (const char *c = text; *c; c++) {
		if (*c == '"' || *c == '\\')
			fprintf(out, "\\%c", *c);
		else if ((unsigned char)*c < 0x20)
			fprintf(out, "\\u%04x", (unsigned int)*c);
		else
			putc(*c, out);
	}
	putc('"', out);
}

static void print_range(FILE *out, const struct field *field)
{
	switch (field->type) {
	case FIELD_TYPE_UINT:
		fprintf(out, ", \"min\": %" PRIu64 ", \"max\": %" PRIu64, field->umin, field->umax);
		break;
	case FIELD_TYPE_INT:
		fprintf(out, ", \"min\": %" PRId64 ", \"max\": %" PRId64, field->min, field->max);
		break;
	case FIELD_TYPE_BYTES:
	case FIELD_TYPE_PATH:
	case FIELD_TYPE_TEXT:
	case FIELD_TYPE_LIST:
	case FIELD_TYPE_ROWS: fprintf(out, ", \"max\": %" PRIu64, field->umax); break;
	case FIELD_TYPE_END:
	case FIELD_TYPE_BOOL:
	case FIELD_TYPE_STRUCT: break;
	}
}

static struct cr_error *print_fields(FILE *out, const struct field *fields, unsigned int depth)
{
	size_t count;

	TRY(field_count(fields, depth, &count));
	putc('[', out);
	for (size_t i = 0; i < count; i++) {
		const struct field *field = &fields[i];

		fprintf(out, "%s{\"name\": ", i ? ", " : "");
		print_string(out, field->name);
		fprintf(out, ", \"type\": \"%s\", \"doc\": ", type_name(field->type));
		print_string(out, field->doc ? field->doc : "");
		fprintf(out, ", \"optional\": %s", field->optional ? "true" : "false");
		print_range(out, field);
		if (field->sub) {
			fprintf(out, ", \"fields\": ");
			TRY(print_fields(out, field->sub, depth + 1));
		}
		putc('}', out);
	}
	putc(']', out);
	return NULL;
}

struct cr_error *record_describe(const struct field *fields, char **ret)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_fclose_ FILE *out = NULL;
	size_t size;
	bool failed;

	out = open_memstream(&text, &size);
	if (!out)
		return error_nomem();
	TRY(print_fields(out, fields, 0));
	failed = ferror(out);
	if (fclose(steal_pointer(&out)) != 0 || failed)
		return error_nomem();
	*ret = steal_pointer(&text);
	return NULL;
}
