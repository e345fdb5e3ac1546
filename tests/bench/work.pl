# work.pl - the Perl workload: words counted, sorted, matched by regular expressions and put together again.
use strict;
use warnings;

my $state = 12345;
sub rng { $state = ($state * 1103515245 + 12345) & 0x7fffffff; return $state >> 8 }

my @syllables = qw(ba ley ward wall gate tow er moat keep arch stone bridge);
my (%count, @text);
for (1 .. 80000) {
    my $word = join '', map { $syllables[rng() % @syllables] } 0 .. rng() % 3;
    $count{$word}++;
    push @text, $word;
}
my $text = join ' ', @text;
my $double = () = $text =~ /\b(\w+) \1\b/g;
(my $changed = $text) =~ s/(\w*)gate(\w*)/$2-$1/g;
my @order = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
print "$double ", length $changed, "\n";
print "$_ $count{$_}\n" for @order[0 .. 99];

my @prime = (1) x 150000;
for my $i (2 .. 388) {
    next unless $prime[$i];
    for (my $j = $i * $i; $j < @prime; $j += $i) { $prime[$j] = 0 }
}
print scalar(grep { $prime[$_] } 2 .. $#prime), "\n";
