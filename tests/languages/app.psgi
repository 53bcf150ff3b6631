use strict;
use warnings;

sub words { join ' ', map { defined $_ ? $_ : 'undef' } @_ }

my $app = sub {
    my @lines;
    uwsgi::cache_clear('c');
    push @lines, words 'set', uwsgi::cache_set('k', 'v', 0, 'c'), uwsgi::cache_set('k', 'w', 0, 'c');
    push @lines, words 'get', uwsgi::cache_get('k', 'c'), scalar(uwsgi::cache_get('none', 'c'));
    push @lines, words 'exists', uwsgi::cache_exists('k', 'c'), uwsgi::cache_exists('none', 'c');
    push @lines, words 'del', uwsgi::cache_del('k', 'c'), uwsgi::cache_del('k', 'c');
    push @lines, words 'gone', scalar(uwsgi::cache_get('k', 'c'));
    push @lines, words 'first', uwsgi::cache_set('k' . rand, 'v'), uwsgi::cache_set("b\0in", "a\0b", 60, 'c');
    push @lines, words 'bytes', length uwsgi::cache_get("b\0in", 'c');
    push @lines, words 'clear', uwsgi::cache_clear('c'), scalar(uwsgi::cache_get("b\0in", 'c'));
    return [200, ['Content-Type' => 'text/plain'], [join("\n", @lines) . "\n"]];
};
