# Calls what the query names: function/argument/..., percent-encoded; =5 is the number 5.
use strict;
use warnings;

sub text {
    my $value = shift;
    return 'nil' unless defined $value;
    $value =~ s/([^ -~]|["\\])/sprintf '\x%02x', ord $1/ge;
    return "\"$value\"";
}

my $app = sub {
    my $env = shift;
    my ($name, @words) = split m{/}, $env->{QUERY_STRING}, -1;
    my @arguments = map { /^=(.*)/ ? 0 + $1 : s/%(..)/chr hex $1/ger } @words;
    my $answer = eval { no strict 'refs'; text(scalar &{"uwsgi::$name"}(@arguments)) };
    my $body = $answer // '!' . (split /\n/, $@)[0] =~ s/ at .*//r;
    return [200, ['Content-Type' => 'text/plain'], [$body]];
};
