/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sqlite_writer STATUS MODE: one row more in each transaction, and how many there are in memory too.
 * After each a second connection, which has cached nothing, must find in the files what memory says.
 */
#include <sqlite3.h>

#include "../victims/victim.h"

enum { WHOLE_CHECK = 32 /* transactions from one look at the whole file to the next */ };

struct book {
	const char *mode;
	char path[256];
	sqlite3 *writer;
	sqlite3_int64 rows, sum; /* committed */
};

static void sql(sqlite3 *base, const char *text)
{
	char *error = NULL;

	check(sqlite3_exec(base, text, NULL, NULL, &error) == SQLITE_OK, "%s: %s", text, error);
}

static void ask(sqlite3 *base, const char *text, char *ret, size_t size)
{
	sqlite3_stmt *statement;

	check(sqlite3_prepare_v2(base, text, -1, &statement, NULL) == SQLITE_OK, "%s: %s", text,
	      sqlite3_errmsg(base));
	check(sqlite3_step(statement) == SQLITE_ROW, "%s: %s", text, sqlite3_errmsg(base));
	snprintf(ret, size, "%s", (const char *)sqlite3_column_text(statement, 0));
	sqlite3_finalize(statement);
}

static void look(struct book *book)
{
	char found[128], expected[128];
	sqlite3 *reader;

	check(sqlite3_open_v2(book->path, &reader, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK,
	      "open");
	ask(reader, "select count(*) || ' ' || total(number) from entry", found, sizeof(found));
	snprintf(expected, sizeof(expected), "%lld %lld.0", book->rows, book->sum);
	check(!strcmp(found, expected), "%s: the file has '%s', memory '%s'", book->mode, found,
	      expected);
	if (book->rows % WHOLE_CHECK == 0) {
		ask(reader, "pragma integrity_check", found, sizeof(found));
		check(!strcmp(found, "ok"), "%s: %s", book->mode, found);
	}
	sqlite3_close(reader);
}

static void enter(struct book *book)
{
	char text[128];

	sql(book->writer, "begin immediate");
	snprintf(text, sizeof(text), "insert into entry values (%lld, randomblob(900))",
		 book->rows);
	sql(book->writer, text);
	/* so that a checkpoint meets the transaction in the middle */
	victim_nap(2);
	sql(book->writer, "update counter set rows = rows + 1");
	sql(book->writer, "commit");
	book->sum += book->rows++;
}

static void begin(struct book *book)
{
	char text[64], mode[32];

	check(sqlite3_open(book->path, &book->writer) == SQLITE_OK, "open");
	snprintf(text, sizeof(text), "pragma journal_mode = %s", book->mode);
	ask(book->writer, text, mode, sizeof(mode));
	check(!strcmp(mode, book->mode), "the mode is %s, not %s", mode, book->mode);
	/* less than a page is never written before the commit */
	sql(book->writer, "pragma cache_size = 2");
	sql(book->writer, "create table entry (number integer, filler blob)");
	sql(book->writer, "create table counter (rows integer)");
	sql(book->writer, "insert into counter values (0)");
}

/* How far it is, for whoever watches; beside the status file, which is read as lines. */
static void tell(const struct book *book)
{
	char path[280], text[32];
	int fd, length = snprintf(text, sizeof(text), "%020lld", book->rows);

	snprintf(path, sizeof(path), "%s.rows", victim_path);
	fd = must(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	check(pwrite(fd, text, (size_t)length, 0) == length, "pwrite: %s", strerror(errno));
	close(fd);
}

int main(int argc, char **argv)
{
	struct book book = {.mode = argc > 2 ? argv[2] : "delete"};

	victim_init(argc, argv);
	snprintf(book.path, sizeof(book.path), "%s.db", victim_path);
	begin(&book);
	tell(&book);
	victim_ready();
	while (!victim_told_to_go()) {
		enter(&book);
		look(&book);
		tell(&book);
	}
	check(book.rows > 0, "nothing was written");
	victim_ok();
	return 0;
}
