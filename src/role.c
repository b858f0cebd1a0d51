/* One of a sandbox's processes as a program of its own, so that it maps no library that only the others need.  The
 * Makefile says by ROLE_MAIN which one; it is started as "sbx ROLE NAME" (docs/protocols.md). */
int ROLE_MAIN(int argc, char **argv);

int main(int argc, char **argv)
{
    return argc > 1 ? ROLE_MAIN(argc - 1, argv + 1) : 2;
}
