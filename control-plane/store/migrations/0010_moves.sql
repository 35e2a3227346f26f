CREATE TABLE "cellfleet_control"."move" (
	"op" text PRIMARY KEY NOT NULL,
	"keyspace" text NOT NULL,
	"source" text NOT NULL,
	"target" text NOT NULL,
	"plan" jsonb NOT NULL,
	"options" jsonb NOT NULL,
	"wish" text DEFAULT 'none' NOT NULL,
	"paused" boolean DEFAULT false NOT NULL,
	"reverses" text,
	"tries" bigint DEFAULT 0 NOT NULL,
	"hold_revision" bigint,
	"release_revision" bigint,
	"progress" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"pause" jsonb,
	"verifications" jsonb DEFAULT '[]'::jsonb NOT NULL,
	"soak_until" timestamp with time zone,
	"failure" jsonb,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."move_key" (
	"op" text NOT NULL,
	"key" text NOT NULL,
	"epoch" bigint NOT NULL,
	"open" boolean DEFAULT true NOT NULL,
	CONSTRAINT "move_key_op_key_pk" PRIMARY KEY("op","key")
);
--> statement-breakpoint
CREATE TABLE "cellfleet_control"."move_object" (
	"op" text NOT NULL,
	"cell" text NOT NULL,
	"store" text NOT NULL,
	"kind" text NOT NULL,
	"name" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "move_object_op_cell_store_kind_name_pk" PRIMARY KEY("op","cell","store","kind","name")
);
--> statement-breakpoint
CREATE INDEX "move_source" ON "cellfleet_control"."move" USING btree ("source");--> statement-breakpoint
CREATE INDEX "move_target" ON "cellfleet_control"."move" USING btree ("target");--> statement-breakpoint
CREATE INDEX "move_reverses" ON "cellfleet_control"."move" USING btree ("reverses");--> statement-breakpoint
CREATE UNIQUE INDEX "move_key_open" ON "cellfleet_control"."move_key" USING btree ("key") WHERE open;