/* The plain cases of `start` and `exec`, which are waited for most, without the libraries of all other commands. */
#ifndef SBX_UI_CLI_QUICK_H
#define SBX_UI_CLI_QUICK_H

/* The exit status; -1, and nothing was done: a case for the whole command line. */
int quick_main(int argc, char **argv);

#endif
